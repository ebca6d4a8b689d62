"""Which queries ask for an order of their rows, and so are read through one stream."""

from __future__ import annotations

import pytest

from pipeline.source.ordering import is_ordered

ORDERED = [
    "SELECT id FROM t ORDER BY id",
    "select id from t order\n\tby id",
    "SELECT id FROM t ORDER BY id DESC LIMIT 10 ;\n",
    "SELECT id FROM t ORDER -- the\n BY id",
    "SELECT id FROM t ORDER /* by */ BY id",
    "SELECT id FROM t ORDER # by\n BY id",
    "SELECT 'it''s' FROM t ORDER BY 1",
    r"SELECT 'a\'' FROM t ORDER BY 1",
    r"SELECT r'\'' FROM t ORDER BY 1",
    'SELECT """a " \' ( b""" FROM t ORDER BY 1',
    "SELECT '''it's (''' FROM t ORDER BY 1",
    "SELECT '(' FROM `a(b` ORDER BY 1",
    "WITH a AS (SELECT 1 AS x) SELECT x FROM a ORDER BY x",
    "SELECT 1 AS x UNION ALL SELECT 2 ORDER BY x",
    "(SELECT 1 AS x) UNION ALL (SELECT 2) ORDER BY x",
    "(SELECT id FROM t ORDER BY id)",
    "((SELECT id FROM t ORDER BY id));",
    "WITH a AS (SELECT 1 AS x), b AS (SELECT 2) (SELECT x FROM a ORDER BY x)",
    "FROM t |> SELECT id |> ORDER BY id",
    "SELECT ARRAY[1, 2][OFFSET(0)] FROM t ORDER BY 1",
    "FROM t |> AGGREGATE COUNT(*) AS n DESC GROUP BY a",
    "FROM t |> aggregate COUNT(*) AS n group by a asc NULLS LAST;",
    "FROM t |> AGGREGATE COUNT(*) AS n GROUP AND ORDER BY a, b",
    "(FROM t |> AGGREGATE SUM(n) AS n DESC)",
    "FROM t |> ORDER BY id DESC |> LIMIT 5",
]
UNORDERED = [
    "",
    ";",
    "SELECT id FROM t",
    "SELECT id FROM (SELECT id FROM t ORDER BY id LIMIT 10)",
    "SELECT ARRAY_AGG(id ORDER BY id) FROM t",
    "SELECT ROW_NUMBER() OVER (PARTITION BY a ORDER BY b) FROM t",
    "SELECT id FROM t QUALIFY RANK() OVER (ORDER BY b) = 1",
    "SELECT id FROM t WINDOW w AS (PARTITION BY a ORDER BY b)",
    "WITH a AS (SELECT 1 AS x ORDER BY x LIMIT 1) SELECT x FROM a",
    "(SELECT 1 ORDER BY 1) UNION ALL (SELECT 2 ORDER BY 1)",
    "WITH a AS (SELECT 1 ORDER BY 1) SELECT (SELECT 1)",
    "SELECT id FROM t -- ORDER BY id",
    "SELECT id FROM t # ORDER BY id",
    "SELECT id FROM t /* ORDER BY id */",
    "SELECT 'x ORDER BY y' FROM t",
    'SELECT """\nORDER BY\n""" FROM t',
    r"SELECT '\' ORDER BY ' FROM t",
    "SELECT id AS `ORDER BY` FROM t",
    "SELECT reorder, byte FROM t",
    "SELECT t.order, by_id FROM t",
    "SELECT id FROM t GROUP BY id",
    "SELECT STRUCT([1, 2] AS a) ) ORDER FROM t",
    "SELECT 'never closed ORDER BY id",
    "SELECT id /* never closed ORDER BY id",
    "FROM t |> AGGREGATE COUNT(*) AS n GROUP BY a",
    "FROM (FROM t |> AGGREGATE COUNT(*) AS n DESC GROUP BY a) |> SELECT n",
    "FROM t |> AGGREGATE ARRAY_AGG(id ORDER BY id DESC) AS n GROUP BY a",
    "SELECT t.desc, t . asc FROM t WHERE id = @desc",
    "SELECT `desc`, 'x DESC' FROM t -- DESC",
]


@pytest.mark.parametrize("sql", ORDERED)
def test_ordered(sql: str) -> None:
    assert is_ordered(sql)


@pytest.mark.parametrize("sql", UNORDERED)
def test_unordered(sql: str) -> None:
    assert not is_ordered(sql)


def test_a_long_query_takes_no_time_to_speak_of() -> None:
    assert is_ordered("SELECT (" + "(1), 'x', -- y\n" * 20_000 + "1) ORDER BY 1")
    assert is_ordered("(" * 300 + "SELECT 1 ORDER BY 1" + ")" * 300)
