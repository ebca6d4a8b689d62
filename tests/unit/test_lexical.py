"""A query as another's subquery: what ends it must not end, or swallow, the other."""

from __future__ import annotations

import pytest

from pipeline.source.lexical import as_subquery, tokens

ENDS = [
    "",
    "\n",
    ";",
    " ; ;\n;",
    "; -- a comment",
    ";-- a comment ; with its own",
    " -- a comment\n;",
    " # a comment",
    "; # a comment\n-- and another",
    "; /* a comment;\n of two lines */ ;",
    " /* never closed",
    "; -- 'no string",
]
QUERIES = [
    "SELECT 1",
    "-- before\nSELECT 1 /* within */ AS x",
    "SELECT ';' AS x, '-- no comment'",
    "SELECT '# ; -- /*'",
    'SELECT "it\'s ; \\" -- "',
    "SELECT r'\\' ; -- '",
    "SELECT '''a ' ; -- '''",
    'SELECT """\n; -- " """',
    "SELECT * FROM `a;b--c`",
    "SELECT 2 - -1, 3 / 4",
    "SELECT 1 -- lines that end in CR\rFROM t # more\rWHERE x",
]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("query", QUERIES)
def test_only_what_ends_a_query_is_left_out(query: str, end: str) -> None:
    assert as_subquery(query + end) == f"({query})"


def test_several_statements_stay_several() -> None:
    assert as_subquery("SELECT 1; SELECT 2;") == "(SELECT 1; SELECT 2)"


@pytest.mark.parametrize("nothing", ["", " ", "; -- nothing", "/* nothing */"])
def test_no_query_is_no_query(nothing: str) -> None:
    assert as_subquery(nothing) == "()"


def test_tokens_know_no_comments_and_no_content_of_strings() -> None:
    assert tokens("select `a b`, 'x' -- y\n from t;") == [
        "SELECT",
        "''",
        ",",
        "''",
        "FROM",
        "T",
        ";",
    ]
