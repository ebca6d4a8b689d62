"""Parameters, time limits, wildcard tables and pseudo columns of the local BigQuery's queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any

import pytest

from pipeline.local.bigquery.jobs import Job, Jobs
from pipeline.local.bigquery.warehouse import Warehouse

Query = Callable[..., Job]
SETUP = (
    "CREATE SCHEMA ds",
    "CREATE TABLE ds.events_20260101 AS SELECT 1 AS id, 'a' AS n",
    "CREATE TABLE ds.events_20260102 AS SELECT 2 AS id, 'b' AS n, DATE '2026-01-02' AS d",
    "CREATE TABLE ds.other AS SELECT 9 AS id",
    "CREATE TABLE ds.daily (id INT64, s STRING) PARTITION BY _PARTITIONDATE",
    "INSERT INTO ds.daily (_PARTITIONTIME, id, s) VALUES (TIMESTAMP '2026-01-01', 1, 'x')",
    "INSERT INTO ds.daily (_PARTITIONTIME, id, s) VALUES (TIMESTAMP '2026-01-02', 2, 'y')",
    "INSERT INTO ds.daily VALUES (3, 'z')",
    "CREATE TABLE ds.monthly (d DATE, id INT64) PARTITION BY DATE_TRUNC(d, MONTH)",
)


@pytest.fixture(scope="module")
def warehouse() -> Iterator[Warehouse]:
    made = Warehouse(None)
    yield made
    made.close()


@pytest.fixture(scope="module")
def query(warehouse: Warehouse) -> Iterator[Query]:
    jobs = Jobs(warehouse)

    def run(sql: str, parameters: Sequence[Any] = (), **more: Any) -> Job:
        settings = {"query": sql, "useLegacySql": False, "queryParameters": list(parameters)}
        job = jobs.insert("p", "", {"query": settings} | more)
        job.done.result()
        return job

    for statement in SETUP:
        job = run(statement)
        assert job.error is None, job.error
    yield run
    jobs.close()


def rows(warehouse: Warehouse, job: Job) -> list[tuple[Any, ...]]:
    assert job.error is None, job.error
    assert job.result is not None
    return [tuple(row.values()) for row in warehouse.page(job.result, 0, 100).to_pylist()]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "SELECT * FROM `ds.events_*` ORDER BY id",
            [(1, "a", None), (2, "b", date(2026, 1, 2))],
        ),
        (
            "SELECT id, _TABLE_SUFFIX AS s FROM `p.ds.events_*` WHERE _TABLE_SUFFIX > '20260101'",
            [(2, "20260102")],
        ),
        (
            "SELECT e.* EXCEPT (d), e._TABLE_SUFFIX FROM ds.`events_2026*` AS e ORDER BY 1",
            [(1, "a", "0101"), (2, "b", "0102")],
        ),
        ("SELECT COUNT(*) AS c FROM `ds.*` WHERE _TABLE_SUFFIX = 'other'", [(1,)]),
        ("SELECT * FROM ds.daily ORDER BY id", [(1, "x"), (2, "y"), (3, "z")]),
        (
            "SELECT id, _PARTITIONDATE AS d FROM ds.daily WHERE _PARTITIONDATE = '2026-01-02'",
            [(2, date(2026, 1, 2))],
        ),
        (
            "SELECT id FROM ds.daily WHERE _PARTITIONTIME >= TIMESTAMP('2026-01-02') ORDER BY id",
            [(2,), (3,)],
        ),
        (
            "SELECT daily.id FROM ds.daily JOIN `ds.events_*` AS e ON daily.id = e.id ORDER BY 1",
            [(1,), (2,)],
        ),
        ("WITH t AS (SELECT * FROM `ds.events_*`) SELECT COUNT(*) AS c FROM t", [(2,)]),
        ("SELECT id FROM ds.monthly WHERE d >= '2026-01-01'", []),
    ],
)
def test_pseudo_columns(
    warehouse: Warehouse, query: Query, sql: str, expected: list[tuple[Any, ...]]
) -> None:
    assert rows(warehouse, query(sql)) == expected


def test_pseudo_columns_are_in_no_schema(warehouse: Warehouse, query: Query) -> None:
    job = query("SELECT * FROM ds.daily")
    assert [column.name for column in job.columns] == ["id", "s"]
    assert warehouse.table("p", "ds", "daily").schema.names == ["id", "s"]


def test_a_wildcard_that_names_nothing(query: Query) -> None:
    error = query("SELECT * FROM `ds.nope_*`").error
    assert error is not None
    assert "does not match any table" in error.message


def named(name: str, kind: str, value: object) -> dict[str, Any]:
    return {"name": name, "parameterType": {"type": kind}, "parameterValue": {"value": value}}


ARRAY = {
    "name": "ids",
    "parameterType": {"type": "ARRAY", "arrayType": {"type": "INT64"}},
    "parameterValue": {"arrayValues": [{"value": "1"}, {"value": "3"}]},
}


def test_parameters_in_every_place(warehouse: Warehouse, query: Query) -> None:
    sql = "SELECT id, @S AS s FROM ds.daily WHERE id IN UNNEST(@ids) ORDER BY id DESC LIMIT @n"
    found = query(sql, [named("s", "STRING", "it's @n"), ARRAY, named("n", "INT64", "1")])
    assert rows(warehouse, found) == [(3, "it's @n")]


@pytest.mark.parametrize(
    ("sql", "parameters", "reason", "said"),
    [
        ("SELECT @a AS x", [], "invalidQuery", "'a' not found"),
        ("SELECT ? AS x", [], "invalidQuery", "Positional"),
        ("SELECT @a + 1 AS x", [named("a", "STRING", "b")], "invalidQuery", ""),
    ],
)
def test_parameters_that_the_query_can_not_take(
    query: Query, sql: str, parameters: list[Any], reason: str, said: str
) -> None:
    error = query(sql, parameters).error
    assert error is not None
    assert (error.reason, said in error.message) == (reason, True)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ([named("", "INT64", "1")], "notImplemented"),
        ([named("a", "GEOGRAPHY", "x")], "notImplemented"),
        ([named("a", "INT64", "x")], "invalid"),
        ([named("a", "INT64", str(2**63))], "invalid"),
        ([named("a", "BOOL", "maybe")], "invalid"),
        ([named("a", "BYTES", "a")], "invalid"),
        ([named("a", "INT64", "1"), named("A", "INT64", "2")], "invalid"),
    ],
)
def test_parameters_that_are_none(query: Query, parameters: list[Any], reason: str) -> None:
    from pipeline.local.bigquery.errors import LocalError

    with pytest.raises(LocalError) as caught:
        query("SELECT 1 AS x", parameters)
    assert caught.value.reason == reason


def test_a_job_ends_at_its_time_limit(query: Query) -> None:
    numbers = "UNNEST(GENERATE_ARRAY(1, 1000000))"
    pairs = f"{numbers} AS a CROSS JOIN {numbers} AS b"
    job = query(f"SELECT COUNT(*) AS n FROM {pairs} WHERE MOD(a * b, 7) = 3", jobTimeoutMs="100")
    assert job.error is not None
    assert (job.error.reason, "timed out after 0.1s" in job.error.message) == ("stopped", True)
