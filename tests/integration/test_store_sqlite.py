"""SQLite's own: the file and its mode, settings, faults, readers beside a writer."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline.checkpoint import SqlStore, schema
from pipeline.errors import ConfigError, StateError, UnusableState
from pipeline.model import DeadLetter
from pipeline.ports import OpenRun

SECRET = b'{"email":"ada@example.com"}'


def open_store(path: Path, *, busy_seconds: float = 5) -> SqlStore:
    return SqlStore(f"sqlite:///{path}", holder="here:1:a", busy_seconds=busy_seconds)


@contextmanager
def a_run(path: Path, *, busy_seconds: float = 5) -> Iterator[tuple[SqlStore, OpenRun]]:
    with closing(open_store(path, busy_seconds=busy_seconds)) as store:
        yield store, store.begin("users", "f")


def letters(first: int, rows: int) -> list[DeadLetter]:
    return [
        DeadLetter(stream=0, row=row, reason="missing_id", message="no userId", payload=SECRET)
        for row in range(first, first + rows)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


# ------------------------------------------------------------------------------- the file


def test_folder_and_file_are_made_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "state.db"

    with a_run(path) as (store, run):
        store.add_dead_letters(run, "a", letters(0, 1))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert set(modes) == {"state.db", "state.db-wal", "state.db-shm"}
    assert set(modes.values()) == {0o600}


def test_an_existing_file_is_closed_to_others(path: Path) -> None:
    open_store(path).close()
    path.chmod(0o664)

    open_store(path).close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_empty_file_becomes_a_state(path: Path) -> None:
    path.touch()

    with a_run(path) as (store, run):
        assert store.runs()[0].id == run.id


def test_a_relative_path_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(SqlStore("sqlite:///sub/state.db", holder="here:1:a")) as store:
        monkeypatch.chdir("/")
        store.begin("users", "f")

    assert (tmp_path / "sub" / "state.db").is_file()


def test_settings_of_every_connection(path: Path) -> None:
    with closing(open_store(path, busy_seconds=3)) as store:
        for _ in range(2):
            with store._database.engine.connect() as connection:
                found = {
                    name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                    for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
                }
                connection.invalidate()  # so that the next one is new
            assert found == {
                "journal_mode": "wal",
                "synchronous": 2,  # FULL
                "foreign_keys": 1,
                "busy_timeout": 3_000,
            }


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root:hunter2@db/x",
        "not a url",
        "",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:state.db?uri=true",
        "sqlite:///state.db?mode=ro",
    ],
)
def test_other_urls_are_a_configuration_fault(url: str) -> None:
    with pytest.raises(ConfigError, match=r"state: .*sqlite:///\.retl/state\.db") as caught:
        SqlStore(url, holder="here:1:a")

    assert "hunter2" not in str(caught.value)


# ------------------------------------------------------------------------------- faults


def refused(path: Path, remedy: str) -> None:
    """Opening a store at `path` says so at once, with the path and the remedy."""
    with pytest.raises(StateError) as caught:
        open_store(path, busy_seconds=0.05)
    assert str(path) in str(caught.value)
    assert remedy in str(caught.value)
    assert type(caught.value) is UnusableState
    assert caught.value.exit_code == 78


def test_a_path_under_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    refused(tmp_path / "file" / "state.db", "Give `state` a path in a folder")
    refused(tmp_path / "file" / "deeper" / "state.db", "Give `state` a path in a folder")


def test_a_folder_at_the_path(tmp_path: Path) -> None:
    refused(tmp_path, "let `state` name a file")


def test_a_device_at_the_path() -> None:
    refused(Path("/dev/null"), "let `state` name a file")


AS_NOBODY = """
import os, sys
from pipeline.checkpoint import SqlStore
from pipeline.errors import StateError
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    SqlStore("sqlite:///" + sys.argv[1], holder="here:1:a")
except StateError as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_folder_or_file_that_is_read_only(what: str) -> None:
    """In a process of its own: to root nothing is read-only."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "state.db"
        if what == "file":
            path.touch()
            path.chmod(0o444)
        folder.chmod(0o555 if what == "folder" else 0o777)
        said = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(path)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        folder.chmod(0o700)

    assert str(path) in said
    assert "may write" in said or "be allowed to write" in said


@pytest.mark.parametrize(
    "content", [b"this is no database" * 99, b"SQLite format 3\0" + b"\xff" * 4_080]
)
def test_a_file_that_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    refused(path, "restore it from a backup, or move it away")
    assert path.read_bytes() == content


def test_a_page_that_was_overwritten(path: Path) -> None:
    with a_run(path) as (store, run):
        store.add_dead_letters(run, "a", letters(0, 2_000))
    with path.open("r+b") as file:
        file.seek(3 * 4_096)
        file.write(b"\xa5" * (path.stat().st_size - 4 * 4_096))

    def read_all() -> None:
        with closing(open_store(path)) as store:
            store.dead_letters(limit=5_000)
            store.dead_letter_summary()

    with pytest.raises(StateError, match="is damaged") as caught:
        read_all()
    assert str(path) in str(caught.value)


def test_locked_by_another_writer(path: Path) -> None:
    with (
        a_run(path, busy_seconds=0.05) as (store, run),
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            StateError, match=r"locked by another writer for longer than 0\.05 s"
        ) as caught:
            store.commit(run, {("a", 0): 1}, {})
        other.execute("ROLLBACK")
        store.commit(run, {("a", 0): 1}, {})

    assert str(path) in str(caught.value)


def test_a_full_disk_keeps_what_was_and_says_nothing_of_the_rows(path: Path) -> None:
    with a_run(path) as (store, run):
        store.add_dead_letters(run, "a", letters(0, 10))
        with store._database.engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")

        with pytest.raises(StateError, match="the disk is full") as caught:
            store.add_dead_letters(run, "a", letters(10, 2_500))

        assert len(store.dead_letters(limit=100)) == 10
        store.commit(run, {("a", 0): 10}, {})
    chain, error = [], caught.value
    while error is not None:
        chain.append(f"{error!r} {vars(error)}")
        error = error.__cause__
    assert str(path) in chain[0]
    assert not any("ada@" in each or "INSERT" in each for each in chain)


# ------------------------------------------------------------------------------- readers


def test_reads_work_while_a_write_is_under_way(path: Path) -> None:
    with (
        a_run(path, busy_seconds=0.05) as (store, run),
        closing(sqlite3.connect(path, isolation_level=None)) as writer,
    ):
        store.add_dead_letters(run, "a", letters(0, 3))
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM dead_letters")

        with closing(open_store(path, busy_seconds=0.05)) as reader:
            for each in (store, reader):
                assert [kept.id for kept in each.runs()] == [run.id]
                assert len(each.dead_letters()) == 3
                assert each.dead_letter_summary() == [("users", "a", "missing_id", 3)]
                assert each.window("users").sequence == 1
        writer.execute("ROLLBACK")


def test_a_write_goes_on_beside_a_slow_reader(path: Path) -> None:
    with a_run(path, busy_seconds=0.05) as (store, run), store._read() as slow:
        before = slow.execute(sa.select(schema.RUNS)).all()
        store.commit(run, {("a", 0): 1}, {})
        store.add_dead_letters(run, "a", letters(0, 3))

        assert slow.execute(sa.select(schema.RUNS)).all() == before
        assert slow.execute(sa.select(schema.DEAD_LETTERS)).all() == []


def test_the_lists_use_their_indexes(path: Path) -> None:
    """Many dead letters must not make a list or a summary read all payloads."""
    with a_run(path) as (store, _run), store._read() as connection:
        plans = {
            name: " ".join(
                row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")
            )
            for name, query in {
                "list": "SELECT * FROM dead_letters ORDER BY id DESC LIMIT 50",
                "summary": "SELECT destination, reason, count(*) FROM dead_letters WHERE run = 'x'"
                " GROUP BY destination, reason",
                "open run": "SELECT * FROM runs WHERE sync = 'x' AND unfinished",
            }.items()
        }

    assert "TEMP B-TREE" not in plans["list"]
    assert "COVERING INDEX dead_letters_by_reason" in plans["summary"]
    assert "USING INDEX runs_one_unfinished" in plans["open run"]
