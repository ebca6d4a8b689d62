"""States that an earlier version wrote: opened, brought up to date, and gone on with."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from stores import KINDS, Stores

from pipeline.checkpoint import SqlStore
from pipeline.checkpoint.migrations import STEPS, migrate
from pipeline.checkpoint.places import database_at
from pipeline.model import Counts, Reading, Result, Window
from pipeline.ports import Shard

# The tables as version 1 made them: never to be edited.
VERSION_1 = """
CREATE TABLE meta (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE syncs (name TEXT NOT NULL, last_sync_time BIGINT NOT NULL, sequence BIGINT NOT NULL,
  PRIMARY KEY (name));
CREATE TABLE leases (sync TEXT NOT NULL, holder TEXT, epoch BIGINT NOT NULL,
  expires {double} NOT NULL, PRIMARY KEY (sync));
CREATE TABLE runs (number {number} NOT NULL, id TEXT NOT NULL, sync TEXT NOT NULL,
  window_start BIGINT NOT NULL, window_sequence BIGINT NOT NULL, fingerprint TEXT NOT NULL,
  attempt INTEGER NOT NULL, unfinished BOOLEAN NOT NULL, started {double} NOT NULL,
  finished {double},
  result TEXT, error TEXT NOT NULL, reading TEXT, counts TEXT NOT NULL,
  PRIMARY KEY (number), UNIQUE (id), FOREIGN KEY(sync) REFERENCES syncs (name));
CREATE INDEX runs_by_sync ON runs (sync, number);
CREATE UNIQUE INDEX runs_one_unfinished ON runs (sync) WHERE unfinished;
CREATE TABLE checkpoints (run TEXT NOT NULL, destination TEXT NOT NULL, stream INTEGER NOT NULL,
  rows BIGINT NOT NULL, PRIMARY KEY (run, destination, stream),
  FOREIGN KEY(run) REFERENCES runs (id));
CREATE TABLE dead_letters (id {number} NOT NULL, run TEXT NOT NULL, destination TEXT NOT NULL,
  stream INTEGER NOT NULL, "row" BIGINT NOT NULL, at {double} NOT NULL, reason TEXT NOT NULL,
  message TEXT NOT NULL, payload {bytes} NOT NULL, PRIMARY KEY (id),
  UNIQUE (run, destination, stream, "row"), FOREIGN KEY(run) REFERENCES runs (id));
CREATE INDEX dead_letters_by_reason ON dead_letters (run, destination, reason);
INSERT INTO meta VALUES (1);
INSERT INTO syncs VALUES ('users', 100, 4);
INSERT INTO leases VALUES ('users', NULL, 7, 0.0);
"""
READING = {
    "streams": ["s0", "s1"],
    "schema": "AAE=",
    "query_started": 500,
    "rows": 20,
    "expires": 900,
    "bytes_processed": 1,
    "bytes_billed": 2,
    "details": {"job": "p:US.j"},
}
COUNTS = {"cio": {"read": 6, "delivered": 6, "dead_lettered": 0, "requests": 2, "retries": 1,
                  "bytes_sent": 99}}  # fmt: skip


TYPES = {
    "sqlite": {"number": "INTEGER", "double": "DOUBLE", "bytes": "BLOB"},
    "postgres": {"number": "BIGSERIAL", "double": "DOUBLE PRECISION", "bytes": "BYTEA"},
}
RUN = (
    "INSERT INTO runs (id, sync, window_start, window_sequence, fingerprint, attempt, unfinished, "
    "started, finished, result, error, reading, counts) VALUES ('run-1', 'users', 100, 5, 'f', 1, "
    f"TRUE, 10.0, 11.0, 'interrupted', '', '{json.dumps(READING)}', '{json.dumps(COUNTS)}');"
    "INSERT INTO checkpoints VALUES ('run-1', 'cio', 0, 6);"
)


@pytest.fixture
def old(stores: Stores) -> str:
    """The URL of a state of version 1."""
    script = VERSION_1.format(**TYPES[stores.kind]) + RUN
    if stores.kind == "sqlite":
        path = Path(stores.url.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True)
        with closing(sqlite3.connect(path)) as raw:
            raw.executescript(script)
    else:
        with psycopg.connect(stores.url) as connection:
            connection.execute(script)  # type: ignore[call-overload] # any text
    return stores.url


@pytest.fixture
def store(old: str) -> Iterator[SqlStore]:
    with closing(SqlStore(old, holder="here:1:a")) as store:
        yield store


def shape(store: SqlStore) -> dict[str, object]:
    """Tables, with their columns in order, indexes and keys."""
    with store._read() as connection:
        inspector = sa.inspect(connection)
        schema = inspector.default_schema_name
        found: dict[str, object] = {}
        for table in inspector.get_table_names(schema=schema):
            columns = inspector.get_columns(table, schema=schema)
            found[table] = (
                [
                    (each["name"], str(each["type"]), each["nullable"], numbered(each["default"]))
                    for each in columns
                ],
                sorted(
                    (each["name"], each["unique"], each["column_names"], partial(each))
                    for each in inspector.get_indexes(table, schema)
                ),
                inspector.get_pk_constraint(table, schema)["constrained_columns"],
                sorted(
                    (*each["constrained_columns"], each["referred_table"])
                    for each in inspector.get_foreign_keys(table, schema)
                ),
            )
        return found


def numbered(default: str | None) -> str | None:
    """A default without the schema that a sequence is in."""
    return None if default is None else re.sub(r"'\"?\w+\"?\.", "'", default)


def partial(index: Any) -> list[str]:
    """On which of the rows it is."""
    return [str(value) for key, value in index["dialect_options"].items() if "where" in key]


def test_an_old_state_becomes_the_same_as_a_new_one(
    store: SqlStore, stores: Stores, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = KINDS[stores.kind](request, tmp_path / "new")
    with closing(SqlStore(url, holder="here:1:b")) as new:
        assert shape(store) == shape(new)


OPENS = """
import sys
from pipeline.checkpoint import SqlStore
print("ready", flush=True)
sys.stdin.readline()
SqlStore(sys.argv[1], holder="here:1:a").close()
"""


@pytest.mark.slow
def test_processes_that_open_an_old_state_at_once_bring_it_up_to_date_once(
    old: str, stores: Stores
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENS, old],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in processes:
        each.communicate()

    assert [each.returncode for each in processes] == [0, 0, 0]
    assert stores.open().begin("users", "f").id == "run-1"


def test_the_state_before_the_newest_step_becomes_the_same_as_a_new_one(
    old: str, stores: Stores, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    before = database_at(old, busy_seconds=10, patience=10)
    with before.write() as connection:
        migrate(connection, old, STEPS[:-1])
    before.close()
    url = KINDS[stores.kind](request, tmp_path / "new")
    with (
        closing(SqlStore(old, holder="here:1:a")) as upgraded,
        closing(SqlStore(url, holder="here:1:b")) as new,
    ):
        assert shape(upgraded) == shape(new)
        assert upgraded.begin("users", "f").id == "run-1"


def test_a_run_of_an_old_state_may_be_shared(store: SqlStore) -> None:
    (record,) = store.runs()
    assert (record.job, record.shards) == (None, 1)
    one = store.begin("users", "f", shard=Shard(index=0, of=2, job="job"))
    other = store.begin("users", "f", shard=Shard(index=1, of=2, job="job"))
    assert (one.id, one.checkpoints, other.checkpoints) == ("run-1", {("cio", 0): 6}, {})
    store.commit(other, {("cio", 1): 4}, {"cio": Counts(read=4, delivered=4, requests=1)})
    (record,) = store.runs()
    assert record.counts == {
        "cio": Counts(read=10, delivered=10, requests=3, retries=1, bytes_sent=99)
    }


def test_a_run_of_an_old_state_is_gone_on_with(store: SqlStore) -> None:
    run = store.begin("users", "f")
    assert (run.id, run.resumed, run.query_key, run.job_key) == ("run-1", True, None, "run-1")
    assert run.done == frozenset()
    assert run.window == Window(start=100, sequence=5)
    assert run.checkpoints == {("cio", 0): 6}
    assert run.counts == {"cio": Counts(read=6, delivered=6, requests=2, retries=1, bytes_sent=99)}
    assert run.reading == Reading(
        streams=("s0", "s1"), schema=b"\0\1", query_started=500, rows=20, expires=900,
        bytes_processed=1, bytes_billed=2, details={"job": "p:US.j"},
    )  # fmt: skip
    assert run.reading.rows_exact  # it was the result of a query
    following = store.restart(run, "expired", same_query=True, done=["cio"])
    assert following.job_key == "run-1"
    store.attach(following, run.reading)
    store.finish(following, Result.COMPLETE, {})
    assert store.window("users") == Window(start=500, sequence=6)
    assert [record.counts for record in store.runs()] == [run.counts, run.counts]
