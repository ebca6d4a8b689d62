"""BigQuery's SQL on the local BigQuery: types kept, BigQuery's rules and BigQuery's words."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.local.bigquery import execute, sql
from pipeline.local.bigquery.errors import LocalError
from pipeline.local.bigquery.sql import Defaults, TableName
from pipeline.local.bigquery.warehouse import Warehouse

PROJECT = "my-project"
RESULT = TableName(PROJECT, "d", "result")


@pytest.fixture
def warehouse() -> Iterator[Warehouse]:
    made = Warehouse()
    made.create_dataset(PROJECT, "d")
    yield made
    made.close()


def run(warehouse: Warehouse, script: str, dataset: str | None = None) -> pa.Table:
    """Run a script; the rows of its last SELECT."""
    default = (PROJECT, dataset) if dataset else None
    for statement in sql.parse(script):
        defaults = Defaults(project=PROJECT, dataset=default)
        plan = execute.prepare(warehouse, statement, defaults, script)
        with warehouse.cursor() as cursor:
            if plan.kind == "SELECT":
                execute.store(warehouse, plan, RESULT, cursor, "WRITE_TRUNCATE")
            else:
                execute.run(warehouse, plan, cursor)
    if not warehouse.exists(RESULT):
        return pa.table({})
    return warehouse.table(PROJECT, "d", "result").read_all()


def refused(warehouse: Warehouse, script: str) -> LocalError:
    with pytest.raises(LocalError) as caught:
        run(warehouse, script)
    return caught.value


def described(table: pa.Table) -> dict[str, str]:
    return {
        field.name: (field.metadata or {}).get(b"ARROW:extension:name", b"").decode()
        or str(field.type)
        for field in table.schema
    }


EVERYTHING = """
CREATE TABLE d.t (
  id INT64 NOT NULL, j JSON, n BIGNUMERIC, g GEOGRAPHY, i INTERVAL, r RANGE<DATE>,
  s STRUCT<a INT64, b ARRAY<STRING>>, ts TIMESTAMP, dt DATETIME, m NUMERIC(10, 2), f FLOAT64,
  l ARRAY<INT64>, y BYTES, o BOOL, c DATE, w TIME, x STRING(20)
) PARTITION BY DATE(ts) CLUSTER BY id OPTIONS (description = 'all types');
INSERT INTO d.t VALUES
  (1, JSON '{"a":1}', BIGNUMERIC '1.5', ST_GEOGPOINT(1, 2), INTERVAL '1-2 3 4:5:6' YEAR TO SECOND,
   RANGE<DATE> '[2020-01-01, UNBOUNDED)', STRUCT(1, ['x']), '2024-01-01 00:00:00+00',
   DATETIME '2024-01-01 00:00:00', 1.5, 1.5, [1, 2], b'a\\xff', TRUE, '2024-01-01', '01:02:03',
   'é'),
  (2, NULL, 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
"""
TYPES = {
    "id": "int64",
    "j": "google:sqlType:json",
    "n": "decimal256(76, 38)",
    "g": "google:sqlType:geography",
    "i": "month_day_nano_interval",
    "r": "struct<start: date32[day], end: date32[day]>",
    "s": "struct<a: int64, b: list<item: string> not null>",
    "ts": "timestamp[us, tz=UTC]",
    "dt": "google:sqlType:datetime",
    "m": "decimal128(38, 9)",
    "f": "double",
    "l": "list<item: int64>",
    "y": "binary",
    "o": "bool",
    "c": "date32[day]",
    "w": "time64[us]",
    "x": "string",
}
FIRST = {
    "id": 1,
    "j": '{"a":1}',
    "n": Decimal("1.5"),
    "g": "POINT(1 2)",
    "i": pa.MonthDayNano([14, 3, 14_706_000_000_000]),
    "r": {"start": dt.date(2020, 1, 1), "end": None},
    "s": {"a": 1, "b": ["x"]},
    "ts": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    "dt": dt.datetime(2024, 1, 1),  # noqa: DTZ001 - a DATETIME has no zone
    "m": Decimal("1.5"),
    "f": 1.5,
    "l": [1, 2],
    "y": b"a\xff",
    "o": True,
    "c": dt.date(2024, 1, 1),
    "w": dt.time(1, 2, 3),
    "x": "é",
}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM d.t",
        "WITH a AS (SELECT * FROM d.t) SELECT * FROM a ORDER BY id",
        "CREATE TABLE d.copy AS SELECT * FROM d.t; SELECT * FROM d.copy",
        "CREATE VIEW d.v AS SELECT * FROM d.t; SELECT * FROM `my-project.d.v`",
        "SELECT * FROM (SELECT * FROM d.t UNION ALL SELECT * FROM my-project.d.t) LIMIT 2",
    ],
)
def test_every_type_survives_ddl_and_queries(warehouse: Warehouse, query: str) -> None:
    got = run(warehouse, EVERYTHING + query)
    assert described(got) == TYPES
    assert FIRST in got.to_pylist()


def test_types_of_literals_casts_and_functions(warehouse: Warehouse) -> None:
    got = run(
        warehouse,
        """SELECT CAST('1.5' AS BIGNUMERIC) a, JSON '{"a":1}' b, NUMERIC '1.5' c,
        DATETIME '2024-01-01 00:00:00' d, TO_JSON(STRUCT(1 AS a)) e, STRUCT(1 AS a, 'x' AS b) f,
        [1, 2] g, RANGE<DATE> '[2020-01-01, 2021-01-01)' h, INTERVAL 1 DAY i,
        json_object('k', 1, 'd', DATETIME '2024-01-01 00:00:00',
                    't', TIMESTAMP '2024-01-01 00:00:00.25+00', 'n', NULL) j,
        1.5 k, NULL l, ARRAY<STRING>[] m, [STRUCT(ST_GEOGPOINT(1, 2) AS g)] n, 1 o, 'x',
        BIGNUMERIC '-0.5' q""",
    )
    assert described(got) == {
        "a": "decimal256(76, 38)",
        "b": "google:sqlType:json",
        "c": "decimal128(38, 9)",
        "d": "google:sqlType:datetime",
        "e": "google:sqlType:json",
        "f": "struct<a: int64, b: string>",
        "g": "list<item: int64>",
        "h": "struct<start: date32[day], end: date32[day]>",
        "i": "month_day_nano_interval",
        "j": "google:sqlType:json",
        "k": "double",
        "l": "int64",
        "m": "list<item: string>",
        "n": "list<item: struct<g: string>>",
        "o": "int64",
        "f0_": "string",
        "q": "decimal256(76, 38)",
    }
    (row,) = got.to_pylist()
    assert row["j"] == '{"k":1,"d":"2024-01-01T00:00:00","t":"2024-01-01T00:00:00.25Z","n":null}'
    assert row["q"] == Decimal("-0.5")
    geography = got.schema.field("n").type.value_type.field("g")
    assert geography.metadata[b"ARROW:extension:name"] == b"google:sqlType:geography"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("UNIX_SECONDS(TIMESTAMP '1969-12-31 23:59:59.5+00')", -1),
        ("UNIX_SECONDS(TIMESTAMP(DATETIME '2024-01-01 00:00:00'))", 1704067200),
        ("UNIX_MILLIS(TIMESTAMP '1969-12-31 23:59:59.9995+00')", -1),
        ("UNIX_SECONDS(CURRENT_TIMESTAMP()) > 1700000000", True),
        ("TIMESTAMP_SECONDS(5) = TIMESTAMP '1970-01-01 00:00:05+00'", True),
        ("TIMESTAMP_MILLIS(5) < TIMESTAMP_MICROS(5001)", True),
        ("TIMESTAMP_SUB(TIMESTAMP_SECONDS(60), INTERVAL 1 MINUTE) = TIMESTAMP_SECONDS(0)", True),
        ("DATE_ADD(DATE '2024-01-31', INTERVAL 1 DAY)", dt.date(2024, 2, 1)),
        ("DATE_TRUNC(DATE '2024-05-05', MONTH)", dt.date(2024, 5, 1)),
        ("PARSE_DATE('%Y-%m-%d', '2024-01-02')", dt.date(2024, 1, 2)),
        ("FORMAT('%05d-%s', 3, 'x')", "00003-x"),
        ("CONCAT('a', CAST(2.0 AS STRING))", "a2"),
        ("CONCAT('a', NULL)", None),
        ("CAST(2.5 AS INT64)", 3),
        ("2000000000 * 2", 4_000_000_000),
        ("1 / 4", 0.25),
        ("MOD(-5, 3)", -2),
        ("SAFE_CAST('x' AS INT64)", None),
        ("CURRENT_TIMESTAMP() > NULL", None),
        ("SAFE_CAST('x' AS BIGNUMERIC)", None),
        ("IF(1 > 2, 'a', 'b')", "b"),
        ("CASE 3 WHEN 3 THEN 'c' END", "c"),
        ("REPEAT('ab', 2)", "abab"),
        ("TO_HEX(MD5('a'))", "0cc175b9c0f1b6a831c399e269772661"),
        ("CAST(BIGNUMERIC '12.50' AS STRING)", "12.5"),
        ("BIGNUMERIC '10' > 9", True),
        ("BIGNUMERIC '1.5' + 1", Decimal("2.5")),
        ("NUMERIC '0.1' + NUMERIC '0.2' = NUMERIC '0.3'", True),
        ("(SELECT SUM(x) FROM UNNEST([1, 2, 3]) AS x)", 6),
        ("ARRAY_LENGTH(GENERATE_ARRAY(1, 10))", 10),
        ("RAND() < 1", True),
        ("EXTRACT(DAYOFWEEK FROM DATE '2024-01-01')", 2),
        ("CAST(NUMERIC '1.50' AS STRING)", "1.5"),
        ("CAST(NUMERIC '100' AS STRING)", "100"),
        ("NUMERIC '1' / 3", Decimal("0.333333333")),
        ("BIGNUMERIC '3' / 2", Decimal("1.5")),
        ("COALESCE(CAST(NULL AS BIGNUMERIC), 2)", Decimal(2)),
        ("CASE WHEN FALSE THEN BIGNUMERIC '1' ELSE 0 END", Decimal(0)),
        ("IF(TRUE, 1, BIGNUMERIC '2')", Decimal(1)),
        ("BIGNUMERIC '2' IN (1, 2)", True),
        ("BIGNUMERIC '2' BETWEEN 1 AND 3", True),
        ("GREATEST(BIGNUMERIC '10', 9)", Decimal(10)),
        ("BIGNUMERIC '1E-38'", Decimal("1E-38")),
        ("BIGNUMERIC '-12.5e-2'", Decimal("-0.125")),
        ("BIGNUMERIC '+.5E+3'", Decimal(500)),
        ("BIGNUMERIC '1.25E1'", Decimal("12.5")),
        ("SAFE_CAST('hello' AS BIGNUMERIC)", None),
        ("SAFE_CAST('1E99' AS BIGNUMERIC)", None),
        ("(SELECT STRING_AGG(x, '' ORDER BY i) FROM UNNEST(['a', 'b']) x WITH OFFSET i)", "ab"),
        ("(SELECT SUM(i) FROM UNNEST(['a', 'b', 'c']) WITH OFFSET AS i)", 3),
        ("(SELECT MIN(offset) FROM UNNEST([7]) AS x WITH OFFSET)", 0),
    ],
)
def test_functions(warehouse: Warehouse, expression: str, expected: object) -> None:
    (row,) = run(warehouse, f"SELECT {expression} AS x").to_pylist()
    assert row["x"] == expected


def test_json_of_nested_values(warehouse: Warehouse) -> None:
    got = run(
        warehouse,
        EVERYTHING
        + """SELECT TO_JSON_STRING(STRUCT(ts AS t, [STRUCT(dt AS d, n AS n)] AS l, g AS g, s AS s))
             AS x, JSON_OBJECT('a', STRUCT(ts AS t)) AS y FROM d.t ORDER BY id LIMIT 1""",
    )
    assert got.to_pylist() == [
        {
            "x": '{"t":"2024-01-01T00:00:00Z","l":[{"d":"2024-01-01T00:00:00","n":1.5}],'
            '"g":"POINT(1 2)","s":{"a":1,"b":["x"]}}',
            "y": '{"a":{"t":"2024-01-01T00:00:00Z"}}',
        }
    ]


def test_the_hosted_products_queries_run(warehouse: Warehouse) -> None:
    run(
        warehouse,
        """CREATE TABLE d.users AS SELECT 1 AS id, 'a@b.c' AS email_address, 'f' AS fname,
             'l' AS lname, '+1' AS msisdn, 1700000000 AS last_updated;
           CREATE TABLE d.events AS SELECT 1 AS id, 'Bought' AS event_name, ['x'] AS products,
             NUMERIC '9.5' AS total_price, 1700000000 AS timestamp;
           CREATE TABLE d.companies AS SELECT 7 AS companyId, 1 AS objectTypeId, 'c' AS companyname,
             5 AS employees, 1 AS personId, 'boss' AS job_title, TRUE AS primary_contact,
             1700000000 AS last_updated;
           CREATE TABLE d.pages AS SELECT 1 AS id, 't' AS metatitle, 'u' AS url, 3 AS time_on_page,
             1700000000 AS timestamp;
           CREATE TABLE d.screens AS SELECT 1 AS id, 's' AS screen_name, 5 AS session_started,
             1700000000 AS timestamp;
           CREATE TABLE d.user_resolution AS SELECT 1 AS id, 2 AS old_id,
             1700000000 AS timestamp""",
    )
    queries = {
        "SELECT id AS userId, email_address AS email, fname, lname, msisdn AS phone FROM users "
        "WHERE last_updated >= 0": ["userId", "email", "fname", "lname", "phone"],
        "SELECT id AS userId, event_name AS event, products, total_price AS value FROM events "
        "WHERE timestamp > 0": ["userId", "event", "products", "value"],
        "SELECT companyId AS groupId, objectTypeId, companyname, employees, personId AS userId, "
        "json_object('job_title', job_title, 'primary_contact', primary_contact) AS "
        "relationshipAttributes FROM companies WHERE last_updated >= 0": [
            "groupId",
            "objectTypeId",
            "companyname",
            "employees",
            "userId",
            "relationshipAttributes",
        ],
        "SELECT id AS userId, metatitle as name, url, time_on_page FROM pages "
        "WHERE timestamp > 0": ["userId", "name", "url", "time_on_page"],
        "SELECT id AS userId, screen_name as name, session_started FROM screens "
        "WHERE timestamp > 0": ["userId", "name", "session_started"],
        "SELECT id AS userId, old_id as previousId FROM user_resolution WHERE timestamp >= 0": [
            "userId",
            "previousId",
        ],
    }
    for query, names in queries.items():
        got = run(warehouse, query, dataset="d")
        assert got.column_names == names
        assert got.num_rows == 1


SIGNATURE = "No matching signature for operator {0} for argument types: {1}, INT64\n  Signature"


@pytest.mark.parametrize(
    ("query", "reason", "message"),
    [
        ("SELECT id FROM d.t WHERE ts >= 0", "invalidQuery", SIGNATURE.format(">=", "TIMESTAMP")),
        ("SELECT id FROM d.t WHERE ts = 0", "invalidQuery", SIGNATURE.format("=", "TIMESTAMP")),
        ("SELECT id FROM d.t WHERE dt < 5", "invalidQuery", SIGNATURE.format("<", "DATETIME")),
        (
            "WITH a AS (SELECT ts AS z FROM d.t)\nSELECT 1 FROM a WHERE z > 5",
            "invalidQuery",
            SIGNATURE.format(">", "TIMESTAMP"),
        ),
        ("SELECT id FROM d.t WHERE ts >= 0", "invalidQuery", " at [1:26]"),
        (
            "SELECT\n  UNIX_SECONDS(dt) FROM d.t",
            "invalidQuery",
            (
                "No matching signature for function UNIX_SECONDS\n"
                "  Argument types: DATETIME\n"
                "  Signature: UNIX_SECONDS(TIMESTAMP)\n"
                "    Argument 1: Unable to coerce type DATETIME to expected type TIMESTAMP at [2:3]"
            ),
        ),
        ("SELECT nope FROM d.t", "invalidQuery", "Unrecognized name: nope at [1:8]"),
        ("SELECT u.id FROM d.t", "invalidQuery", "Unrecognized name: u at [1:8]"),
        ("SELECT t.nope FROM d.t", "invalidQuery", "Name nope not found inside t at [1:10]"),
        ("SELECT id\nFROM d.t WHERE", "invalidQuery", "Syntax error: "),
        ("SELECT (1", "invalidQuery", "Syntax error: "),
        ("SELECT 'x", "invalidQuery", "Syntax error: "),
        ("SELECT a b c", "invalidQuery", 'Syntax error: Unexpected "c" at [1:12]'),
        ("SELECT FROM d.t", "invalidQuery", "SELECT list must not be empty at [1:8]"),
        ("  ", "invalidQuery", "Syntax error: Unexpected end of statement at [1:1]"),
        ("SELECT NOPE(1)", "invalidQuery", "Function not found: nope"),
        ("SELECT 1 AS a, 2 AS A", "invalidQuery", "Duplicate column names"),
        ("SELECT CAST('x' AS INT64)", "invalidQuery", "'x'"),
        ("SELECT 1 / (id - 1) FROM d.t", "invalidQuery", "division by zero: 1 / 0"),
        ("SELECT n || 'x' FROM d.t", "invalidQuery", "argument types: BIGNUMERIC, STRING at"),
        ("SELECT CONCAT('x', id) FROM d.t", "invalidQuery", "argument types: STRING, INT64 at"),
        ("SELECT g + 1 FROM d.t", "invalidQuery", "GEOGRAPHY"),
        ("SELECT @x", "notImplemented", "query parameters"),
        ("SELECT SAFE.PARSE_DATE('%Y', 'x')", "notImplemented", "SAFE."),
        (
            "SELECT * FROM d.none",
            "notFound",
            "Not found: Table my-project:d.none was not found in location US",
        ),
        ("SELECT * FROM none.t", "notFound", "Not found: Dataset my-project:none"),
        (
            "SELECT * FROM forbidden.t",
            "accessDenied",
            (
                "Access Denied: Table my-project:forbidden.t: User does not have permission to "
                "query table my-project:forbidden.t, or perhaps it does not exist."
            ),
        ),
        ("SELECT * FROM t", "invalid", "must be qualified with a dataset"),
        ("UPDATE d.t SET id = 3", "invalidQuery", "UPDATE must have a WHERE clause at [1:1]"),
        ("DELETE FROM d.t", "invalidQuery", "DELETE must have a WHERE clause at [1:1]"),
        ("UPDATE d.t SET j = 'x' WHERE TRUE", "invalidQuery", "STRING cannot be assigned to j"),
        ("INSERT INTO d.t (id) VALUES ('x')", "invalidQuery", "cannot be inserted into column id"),
        ("INSERT INTO d.t (id) VALUES (1, 2)", "invalidQuery", "Has 2, expected 1"),
        ("INSERT INTO d.t (id) VALUES (NULL)", "invalidQuery", "Required field id cannot be null"),
        ("INSERT INTO d.t (zz) VALUES (1)", "invalidQuery", "zz is not present in table"),
        ("CREATE TABLE d.t (a INT64)", "duplicate", "Already Exists: Table my-project:d.t"),
        ("CREATE TABLE none.t (a INT64)", "notFound", "Dataset my-project:none"),
        ("CREATE SCHEMA d", "duplicate", "Already Exists: Dataset my-project:d"),
        ("DROP TABLE d.none", "notFound", "Table my-project:d.none"),
        ("DECLARE x INT64", "notImplemented", "DECLARE"),
        ("ALTER TABLE d.t ADD COLUMN x INT64", "notImplemented", "ALTER"),
        ("SELECT * FROM d.INFORMATION_SCHEMA.TABLES", "notImplemented", "INFORMATION_SCHEMA"),
        ("SELECT ST_AREA(g) FROM d.t", "notImplemented", "ST_AREA"),
    ],
)
def test_refusals(warehouse: Warehouse, query: str, reason: str, message: str) -> None:
    run(warehouse, EVERYTHING)
    error = refused(warehouse, query)
    assert error.reason == reason
    assert message in error.message
    assert error.http < 500 or error.http == 501
    assert "DuckDB" not in error.message
    assert "STRUCT(" not in error.message


def test_comparisons_that_bigquery_accepts(warehouse: Warehouse) -> None:
    got = run(
        warehouse,
        EVERYTHING
        + """SELECT id FROM d.t WHERE ts >= TIMESTAMP_SECONDS(0) AND ts > '2020-01-01'
             AND ts <= CURRENT_TIMESTAMP() AND dt > DATE '2020-01-01' AND id < 1.5 AND n > 1
             AND m >= 1.5 AND DATE(ts) = '2024-01-01' AND ts IS NOT NULL
             AND UNIX_SECONDS(ts) > 0""",
    )
    assert got.to_pylist() == [{"id": 1}]


def test_dml(warehouse: Warehouse) -> None:
    got = run(
        warehouse,
        """CREATE TABLE d.a (id INT64, v FLOAT64, n BIGNUMERIC);
           INSERT d.a (id, v) SELECT x, x / 2 FROM UNNEST(GENERATE_ARRAY(1, 5)) AS x;
           UPDATE d.a SET v = 9, n = NUMERIC '1.5' WHERE id = 1;
           UPDATE d.a SET v = s.y FROM (SELECT 2 AS x, 8.0 AS y) AS s WHERE a.id = s.x;
           DELETE d.a WHERE id = 3;
           MERGE d.a T USING (SELECT 4 AS id, 7.0 AS v UNION ALL SELECT 6, 6.0) S ON T.id = S.id
             WHEN MATCHED THEN UPDATE SET v = S.v
             WHEN NOT MATCHED THEN INSERT (id, v) VALUES (S.id, S.v);
           SELECT * FROM d.a ORDER BY id""",
    )
    assert [tuple(row.values()) for row in got.to_pylist()] == [
        (1, 9.0, Decimal("1.5")),
        (2, 8.0, None),
        (4, 7.0, None),
        (5, 2.5, None),
        (6, 6.0, None),
    ]
    assert run(warehouse, "TRUNCATE TABLE d.a; SELECT * FROM d.a").num_rows == 0


def test_integers_of_a_created_table_are_64_bits_wide(warehouse: Warehouse) -> None:
    got = run(
        warehouse,
        "CREATE OR REPLACE TABLE d.w AS SELECT 1 AS a; "
        "INSERT INTO d.w VALUES (9000000000); SELECT * FROM d.w",
    )
    assert got.to_pylist() == [{"a": 1}, {"a": 9_000_000_000}]


def test_structs_are_assigned_by_place(warehouse: Warehouse) -> None:
    got = run(
        warehouse,
        """CREATE TABLE d.s (s STRUCT<a INT64, b BIGNUMERIC>, l ARRAY<BIGNUMERIC>);
           INSERT INTO d.s SELECT STRUCT(1 AS x, 2 AS y), [1, 2]; SELECT * FROM d.s""",
    )
    assert got.to_pylist() == [{"s": {"a": 1, "b": Decimal(2)}, "l": [Decimal(1), Decimal(2)]}]


@pytest.mark.parametrize(
    "source", ["d.t, UNNEST(l) AS e", "d.t, t.l AS e", "d.t AS q CROSS JOIN UNNEST(q.l) e"]
)
def test_unnest_of_a_column(warehouse: Warehouse, source: str) -> None:
    got = run(warehouse, EVERYTHING + f"SELECT id, e FROM {source} ORDER BY e DESC")
    assert got.to_pylist() == [{"id": 1, "e": 2}, {"id": 1, "e": 1}]


def test_queries_see_neither_files_nor_variables(warehouse: Warehouse, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a\n1\n")
    refused(warehouse, f"SELECT * FROM read_csv('{path}')")
    refused(warehouse, f"SELECT * FROM `{path}`")
    local = pa.table({"a": [1]})
    refused(warehouse, "SELECT * FROM local")
    assert local.num_rows == 1


def test_order_is_kept(warehouse: Warehouse) -> None:
    got = run(
        warehouse,
        "SELECT id, 1 AS one FROM UNNEST(GENERATE_ARRAY(1, 200000)) AS id ORDER BY id DESC",
    )
    assert got.column("id").to_pylist() == list(range(200_000, 0, -1))


def test_loaded_data_reads_back_and_appends(warehouse: Warehouse) -> None:
    data = run(warehouse, EVERYTHING + "SELECT * FROM d.t")
    warehouse.load(PROJECT, "fresh", "t", data)
    warehouse.load(PROJECT, "fresh", "t", data)
    got = warehouse.table(PROJECT, "fresh", "t").read_all()
    assert got.schema.equals(data.schema, check_metadata=True)
    assert got.to_pylist() == data.to_pylist() * 2


@pytest.mark.parametrize(
    ("restriction", "ids"),
    [
        ("id > 1", [2]),
        ("n >= 1.5 AND j IS NULL", [2]),
        ("ts >= TIMESTAMP '2023-01-01' OR FALSE", [1]),
        ("s.a = 1 -- comment", [1]),
        ("id > 5", []),
    ],
)
def test_row_restriction(warehouse: Warehouse, restriction: str, ids: list[int]) -> None:
    run(warehouse, EVERYTHING)
    got = warehouse.table(
        PROJECT, "d", "t", row_restriction=restriction, selected_fields=["s.b", "id"]
    ).read_all()
    assert got.column_names == ["id", "s"]
    assert [field.name for field in got.schema.field("s").type] == ["b"]
    assert got.column("id").to_pylist() == ids


@pytest.mark.parametrize(
    "restriction",
    ["ts >= 0", "nope = 1", "id >", "1 = 1; DROP TABLE d.t", "id IN (SELECT 1)", "id = 1 LIMIT 1"],
)
def test_bad_row_restriction(warehouse: Warehouse, restriction: str) -> None:
    run(warehouse, EVERYTHING)
    with pytest.raises(LocalError) as caught:
        warehouse.table(PROJECT, "d", "t", row_restriction=restriction)
    assert caught.value.reason == "invalidQuery"


def test_a_reader_sees_the_table_of_its_moment(warehouse: Warehouse) -> None:
    run(warehouse, "CREATE TABLE d.a AS SELECT x FROM UNNEST(GENERATE_ARRAY(1, 300000)) AS x")
    reader = warehouse.table(PROJECT, "d", "a")
    first = reader.read_next_batch().num_rows
    run(warehouse, "DELETE FROM d.a WHERE TRUE")
    assert first + sum(batch.num_rows for batch in reader) == 300_000
    assert warehouse.table(PROJECT, "d", "a").read_all().num_rows == 0


def test_threads_read_and_write_side_by_side(warehouse: Warehouse) -> None:
    run(warehouse, "CREATE TABLE d.a (x INT64)")
    faults: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                run_dml(warehouse, f"INSERT INTO d.a VALUES ({number})")
                warehouse.table(PROJECT, "d", "a").read_all()
                run_dml(warehouse, f"UPDATE d.a SET x = x WHERE x = {number}")
        except BaseException as error:  # noqa: BLE001 - shown below
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert warehouse.rows(TableName(PROJECT, "d", "a")) == 30


def run_dml(warehouse: Warehouse, query: str) -> None:
    (statement,) = sql.parse(query)
    plan = execute.prepare(warehouse, statement, Defaults(project=PROJECT), query)
    with warehouse.cursor() as cursor:
        execute.run(warehouse, plan, cursor)


def test_a_warehouse_on_disk_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    first = Warehouse(path)
    first.create_dataset(PROJECT, "d")
    run(first, EVERYTHING)
    first.close()
    second = Warehouse(path)
    got = second.table(PROJECT, "d", "t").read_all()
    second.close()
    assert described(got) == TYPES
    assert got.to_pylist()[0] == FIRST


def plan_of(warehouse: Warehouse, query: str) -> Any:
    (statement,) = sql.parse(query)
    return execute.prepare(warehouse, statement, Defaults(project=PROJECT), query)


def test_bytes_are_those_of_the_columns_read(warehouse: Warehouse) -> None:
    run(warehouse, "CREATE TABLE d.b AS SELECT x AS id, 'four' AS s FROM UNNEST([1, 2, 3]) AS x")
    assert plan_of(warehouse, "SELECT id FROM d.b").nbytes == 24
    assert plan_of(warehouse, "SELECT * FROM d.b").nbytes == 24 + 3 * 6
    assert plan_of(warehouse, "SELECT 1").nbytes == 0
    run(warehouse, "INSERT INTO d.b VALUES (4, 'five')")
    assert plan_of(warehouse, "SELECT id FROM d.b").nbytes == 32


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("SELECT 1", "SELECT"),
        ("WITH a AS (SELECT 1 x) SELECT x FROM a UNION ALL SELECT 2", "SELECT"),
        ("INSERT INTO d.t (id) VALUES (1)", "INSERT"),
        ("UPDATE d.t SET id = 1 WHERE TRUE", "UPDATE"),
        ("DELETE FROM d.t WHERE TRUE", "DELETE"),
        ("CREATE TABLE d.n (a INT64)", "CREATE_TABLE"),
        ("CREATE TABLE d.n AS SELECT 1 a", "CREATE_TABLE_AS_SELECT"),
        ("CREATE VIEW d.n AS SELECT 1 a", "CREATE_VIEW"),
        ("CREATE SCHEMA n", "CREATE_SCHEMA"),
        ("DROP TABLE d.t", "DROP_TABLE"),
        ("TRUNCATE TABLE d.t", "TRUNCATE_TABLE"),
    ],
)
def test_statement_types_and_that_a_plan_changes_nothing(
    warehouse: Warehouse, statement: str, kind: str
) -> None:
    run(warehouse, EVERYTHING)
    assert plan_of(warehouse, statement).kind == kind
    assert warehouse.rows(TableName(PROJECT, "d", "t")) == 2
    assert not warehouse.exists(TableName(PROJECT, "d", "n"))
    assert sql.script_type(sql.parse(f"{statement}; SELECT 1")) == "SCRIPT"
