"""States that an earlier version wrote: opened, brought up to date, and gone on with."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.checkpoint import SqlStore
from pipeline.model import Counts, Reading, Result, Window

# The tables as version 1 made them: never to be edited.
VERSION_1 = """
CREATE TABLE meta (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE syncs (name TEXT NOT NULL, last_sync_time BIGINT NOT NULL, sequence BIGINT NOT NULL,
  PRIMARY KEY (name));
CREATE TABLE leases (sync TEXT NOT NULL, holder TEXT, epoch BIGINT NOT NULL,
  expires DOUBLE NOT NULL, PRIMARY KEY (sync));
CREATE TABLE runs (number INTEGER NOT NULL, id TEXT NOT NULL, sync TEXT NOT NULL,
  window_start BIGINT NOT NULL, window_sequence BIGINT NOT NULL, fingerprint TEXT NOT NULL,
  attempt INTEGER NOT NULL, unfinished BOOLEAN NOT NULL, started DOUBLE NOT NULL, finished DOUBLE,
  result TEXT, error TEXT NOT NULL, reading TEXT, counts TEXT NOT NULL,
  PRIMARY KEY (number), UNIQUE (id), FOREIGN KEY(sync) REFERENCES syncs (name));
CREATE INDEX runs_by_sync ON runs (sync, number);
CREATE UNIQUE INDEX runs_one_unfinished ON runs (sync) WHERE unfinished;
CREATE TABLE checkpoints (run TEXT NOT NULL, destination TEXT NOT NULL, stream INTEGER NOT NULL,
  rows BIGINT NOT NULL, PRIMARY KEY (run, destination, stream),
  FOREIGN KEY(run) REFERENCES runs (id));
CREATE TABLE dead_letters (id INTEGER NOT NULL, run TEXT NOT NULL, destination TEXT NOT NULL,
  stream INTEGER NOT NULL, "row" BIGINT NOT NULL, at DOUBLE NOT NULL, reason TEXT NOT NULL,
  message TEXT NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (id),
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


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.executescript(VERSION_1)
        raw.execute(
            "INSERT INTO runs VALUES (1, 'run-1', 'users', 100, 5, 'f', 1, 1, 10.0, 11.0, "
            "'interrupted', '', ?, ?)",
            (json.dumps(READING), json.dumps(COUNTS)),
        )
        raw.execute("INSERT INTO checkpoints VALUES ('run-1', 'cio', 0, 6)")
    return path


@pytest.fixture
def store(old: Path) -> Iterator[SqlStore]:
    with closing(SqlStore(f"sqlite:///{old}", holder="here:1:a")) as store:
        yield store


def shape(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as raw:
        tables = [name for (name,) in raw.execute("SELECT name FROM sqlite_master")]
        return {
            name: [row[1:] for row in raw.execute(f"PRAGMA table_xinfo({name})")] for name in tables
        }


def test_an_old_state_becomes_the_same_as_a_new_one(
    old: Path, store: SqlStore, tmp_path: Path
) -> None:
    SqlStore(f"sqlite:///{tmp_path}/new.db", holder="here:1:b").close()
    assert shape(old) == shape(tmp_path / "new.db")


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
