"""The sample data, run on DuckDB: proportions, bad rows, times, and what a change moves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, load_config
from pipeline.errors import ConfigError
from pipeline.local.sample.load import MOST_ROWS, changes, configuration, counts, statements
from pipeline.model import Call

duckdb = pytest.importorskip("duckdb")
sqlglot = pytest.importorskip("sqlglot")

ADDRESSES = {
    "rest": "http://127.0.0.1:1001",
    "storage": "127.0.0.1:1002",
    "customerio": "http://127.0.0.1:1003",
}
TABLES = ("users", "events", "companies", "pages", "screens", "user_resolution")
SYNCS = ("users", "events", "companies", "pages", "screens", "aliases")


def run(connection: Any, sql: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for statement in sqlglot.transpile(sql, read="bigquery", write="duckdb"):
        rows = connection.execute(statement).fetchall()
    return rows


def loaded(rows: int) -> Any:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for statement in statements(rows):
        run(connection, statement)
    return connection


@pytest.fixture(scope="module")
def sample() -> Iterator[Any]:
    """2,000 users, not to be changed."""
    connection = loaded(2000)
    yield connection
    connection.close()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "retl.yml"
    path.write_text(configuration(**ADDRESSES))
    return load_config(path, {})


def query(config: Config, name: str, since: int) -> str:
    text = config.syncs[name].query
    assert text is not None
    assert "{{last_sync_time}}" in text
    return text.replace("{{last_sync_time}}", str(since))


def one(connection: Any, sql: str) -> Any:
    return run(connection, sql)[0][0]


def test_proportions(sample: Any) -> None:
    found = [one(sample, f"SELECT COUNT(*) FROM app.{table}") for table in TABLES]
    assert found == [2000, 3000, 100, 200, 200, 20] == list(counts(2000).values())


@pytest.mark.parametrize("rows", [1, 12, 13, 100_001])
def test_other_sizes(rows: int) -> None:
    connection = loaded(rows)
    assert one(connection, "SELECT COUNT(*) FROM app.users") == rows
    assert one(connection, "SELECT COUNT(DISTINCT msisdn) FROM app.users") == rows
    assert one(connection, "SELECT COUNT(*) FROM app.user_resolution") >= 1


def test_a_second_load_replaces_the_first_with_the_same() -> None:
    def hashes(connection: Any) -> list[Any]:
        return [
            connection.execute(f"SELECT sum(hash(t::VARCHAR)) FROM app.{table} AS t").fetchone()
            for table in TABLES
        ]

    connection = loaded(150)
    first = hashes(connection)
    for statement in statements(150):
        run(connection, statement)
    assert hashes(connection) == first == hashes(loaded(150))


def test_the_bad_rows_are_those_that_the_script_names(sample: Any) -> None:
    bad = {
        "SELECT COUNT(*) FROM app.users WHERE id IS NULL AND email_address IS NULL": 3,
        "SELECT COUNT(*) FROM app.users WHERE id IS NULL": 3,
        "SELECT COUNT(*) FROM app.events WHERE event_name IS NULL": 3,
        "SELECT COUNT(*) FROM app.events WHERE LENGTH(comment) > 32000": 3,
        "SELECT COUNT(*) FROM app.events WHERE comment IS NOT NULL": 3,
        "SELECT COUNT(*) FROM app.events WHERE comment IS NOT NULL AND event_name IS NULL": 0,
    }
    assert {sql: one(sample, sql) for sql in bad} == bad


def test_no_other_value_is_missing(sample: Any) -> None:
    # A wrong expression turns into NULL in every engine: look at each column.
    optional = {("users", "id"), ("users", "email_address"), ("events", "event_name")}
    optional.add(("events", "comment"))
    for table in TABLES:
        for column, *_ in sample.execute(f"DESCRIBE app.{table}").fetchall():
            nulls = one(sample, f"SELECT COUNT(*) FROM app.{table} WHERE {column} IS NULL")
            assert (nulls > 0) == ((table, column) in optional), (table, column)


def test_values_vary_and_stay_in_bounds(sample: Any) -> None:
    assert one(sample, "SELECT COUNT(DISTINCT plan) FROM app.users") == 3
    assert one(sample, "SELECT COUNT(DISTINCT fname) FROM app.users") == 8
    assert one(sample, "SELECT COUNT(DISTINCT order_id) FROM app.events") == 3000
    assert run(sample, "SELECT MIN(ARRAY_LENGTH(products)), MAX(ARRAY_LENGTH(products)) "
               "FROM app.events") == [(1, 2)]  # fmt: skip
    assert run(sample, "SELECT MIN(id), MAX(id) FROM app.events") == [(1, 2000)]
    assert one(sample, "SELECT COUNT(*) FROM app.events AS e JOIN app.users AS u USING (id)") > 2900


def test_all_times_lie_in_the_past(sample: Any) -> None:
    latest = [
        one(sample, f"SELECT MAX({column}) FROM app.{table}")
        for table, column in [
            ("users", "last_updated"),
            ("companies", "last_updated"),
            *((table, "timestamp") for table in ("events", "pages", "screens", "user_resolution")),
        ]
    ]
    assert max(latest) < datetime(2025, 1, 1, tzinfo=UTC)


def test_the_configuration_has_one_sync_for_each_call(config: Config) -> None:
    assert tuple(config.syncs) == SYNCS
    assert [sync.call for sync in config.syncs.values()] == [
        Call.IDENTIFY,
        Call.TRACK,
        Call.GROUP,
        Call.PAGE,
        Call.SCREEN,
        Call.ALIAS,
    ]
    text = configuration(**ADDRESSES)
    assert "${" not in text
    for part in ("http://127.0.0.1:1001", "http://127.0.0.1:1002", "http://127.0.0.1:1003/v1"):
        assert part in text
    assert text == configuration(**{**ADDRESSES, "storage": "http://127.0.0.1:1002"})


def test_the_file_itself_is_valid_with_its_variables(tmp_path: Path) -> None:
    from importlib.resources import files

    path = tmp_path / "retl.yml"
    path.write_text(files("pipeline.local.sample").joinpath("retl.yml").read_text())
    env = {
        "LOCAL_BIGQUERY_REST": "http://127.0.0.1:1001",
        "LOCAL_BIGQUERY_STORAGE": "http://127.0.0.1:1002",
        "LOCAL_CUSTOMERIO": "http://127.0.0.1:1003/v1",
    }
    assert tuple(load_config(path, env).syncs) == SYNCS


def test_a_change_moves_some_rows_of_three_syncs_and_only_those(config: Config) -> None:
    connection = loaded(2000)
    started = int(one(connection, "SELECT UNIX_SECONDS(CURRENT_TIMESTAMP())"))

    def moved(since: int) -> list[int]:
        return [len(run(connection, query(config, name, since))) for name in SYNCS]

    assert moved(0) == [2000, 3000, 100, 200, 200, 20]
    assert moved(started) == [0, 0, 0, 0, 0, 0]
    for statement in changes():
        run(connection, statement)
    assert moved(started) == [20, 20, 0, 20, 0, 0]
    assert moved(0) == [2000, 3020, 100, 220, 200, 20]


def test_a_change_touches_no_bad_row(config: Config) -> None:
    connection = loaded(3000)
    started = int(one(connection, "SELECT UNIX_SECONDS(CURRENT_TIMESTAMP())"))
    for statement in changes():
        run(connection, statement)
    for name in ("users", "events", "pages"):
        rows = run(connection, query(config, name, started))
        assert rows
        assert all(row[0] is not None and row[1] is not None for row in rows)


def test_even_one_user_has_something_to_change(config: Config) -> None:
    connection = loaded(1)
    started = int(one(connection, "SELECT UNIX_SECONDS(CURRENT_TIMESTAMP())"))
    for statement in changes():
        run(connection, statement)
    assert len(run(connection, query(config, "users", started))) == 1


@pytest.mark.parametrize("rows", [0, -1, MOST_ROWS + 1])
def test_a_size_out_of_bounds_is_refused(rows: int) -> None:
    with pytest.raises(ConfigError, match="Ask for 1 to 100,000,000"):
        statements(rows)
