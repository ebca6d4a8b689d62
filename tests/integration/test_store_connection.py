"""A connection to Postgres that breaks: waited out, and nothing is done twice or left undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from postgres import Line, Postgres
from stores import COUNTS, READING, letter

from pipeline.checkpoint import SqlStore
from pipeline.checkpoint.database import ConnectionLost
from pipeline.checkpoint.postgres import PostgresServer
from pipeline.errors import LeaseError, StateError, UnusableState
from pipeline.model import Result, Window
from pipeline.ports import OpenRun

Prepared = tuple[Line, SqlStore]


@pytest.fixture
def prepared(postgres: Postgres) -> Iterator[Prepared]:
    line = Line(postgres)
    with closing(line), closing(SqlStore(line.url(postgres.schema()), holder="here:1:a")) as store:
        yield line, store


WRITES: dict[str, Callable[[SqlStore, OpenRun], object]] = {
    "attach": lambda store, run: store.attach(run, READING),
    "commit": lambda store, run: store.commit(run, {("a", 0): 1}, COUNTS),
    "dead letters": lambda store, run: store.add_dead_letters(run, "a", [letter(1)]),
    "restart": lambda store, run: store.restart(run, "gone"),
    "finish": lambda store, run: store.finish(run, Result.COMPLETE, COUNTS),
    "report": lambda store, run: store.keep_report(run.id, {"rows": 1}),
}


def everything(store: SqlStore) -> object:
    runs = [(run.id, run.result, run.counts, run.query_started) for run in store.runs()]
    letters = [kept.letter for kept in store.dead_letters()]
    return runs, letters, store.window("users"), [reports_of(store, run[0]) for run in runs]


def reports_of(store: SqlStore, run: str) -> int:
    kept = store.run(run)
    assert kept is not None
    return len(kept.reports)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("answered", [False, True], ids=["undone", "durable"])
@pytest.mark.parametrize("write", WRITES)
def test_a_commit_whose_answer_is_lost_is_done_once(
    prepared: Prepared, write: str, *, answered: bool, times: int
) -> None:
    line, store = prepared
    run = store.begin("users", "f")
    store.attach(run, READING)
    before = everything(store)
    seen = line.connections
    line.cut_commits(times, answered=answered)

    WRITES[write](store, run)

    assert line.connections > seen  # it was cut indeed
    assert write == "attach" or everything(store) != before
    assert len(store.dead_letters()) == (write == "dead letters")
    assert reports_of(store, run.id) == (write == "report")
    assert len(store.runs()) == 1 + (write == "restart")
    complete = Window(start=READING.query_started, sequence=2)
    assert (store.window("users") == complete) is (write == "finish")


@pytest.mark.parametrize("answered", [False, True], ids=["undone", "durable"])
def test_a_run_that_is_begun_while_the_line_breaks_is_ours(
    prepared: Prepared, *, answered: bool
) -> None:
    line, store = prepared
    line.cut_commits(1, answered=answered)

    run = store.begin("users", "f")

    assert [kept.id for kept in store.runs()] == [run.id]
    store.commit(run, {("a", 0): 1}, COUNTS)


def test_a_connection_that_broke_between_two_writes(postgres: Postgres) -> None:
    with closing(SqlStore(postgres.fresh(), holder="here:1:a")) as store:
        run = store.begin("users", "f")
        postgres.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'retl'"
        )
        store.commit(run, {("a", 0): 1}, COUNTS)
        postgres.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'retl'"
        )
        assert store.runs()[0].counts == COUNTS


@pytest.mark.slow
def test_a_server_that_is_down_for_longer_than_the_lease_ends_the_run(postgres: Postgres) -> None:
    with closing(SqlStore(postgres.fresh(), holder="here:1:a", lease_seconds=0.3)) as store:
        run = store.begin("users", "f")
        store.commit(run, {("a", 0): 1}, COUNTS)
        postgres.stop()
        try:
            with pytest.raises(StateError, match="can't be reached") as caught:
                store.commit(run, {("a", 0): 2}, COUNTS)
        finally:
            postgres.start()
        assert caught.value.exit_code == 75
        store.commit(run, {("a", 0): 3}, COUNTS)
        store.finish(run, Result.INTERRUPTED, {})
        assert store.begin("users", "f").checkpoints == {("a", 0): 3}


@pytest.mark.slow
def test_a_server_that_restarts_is_waited_for(postgres: Postgres) -> None:
    events: list[str] = []
    with closing(SqlStore(postgres.fresh(), holder="here:1:a")) as store:
        run = store.begin("users", "f")
        server: Any = store._database

        def sleep(_seconds: float) -> None:
            if not events:
                postgres.start()
            events.append("waited")

        server._sleep = sleep
        postgres.stop()
        store.commit(run, {("a", 0): 1}, COUNTS)
        assert events
        assert store.runs()[0].counts == COUNTS


@pytest.mark.slow
def test_a_primary_that_is_replaced_is_waited_for(postgres: Postgres) -> None:
    """As in a failover: what answers is a replica, until it is made the primary."""
    url, events = postgres.fresh(), list[str]()
    with closing(SqlStore(url, holder="here:1:a")) as store:
        run = store.begin("users", "f")
        server: Any = store._database
        postgres.stop()
        postgres.start(replica=True)

        def sleep(_seconds: float) -> None:
            if not events:
                with pytest.raises(UnusableState, match="Let `state` name the primary"):
                    SqlStore(url, holder="here:2:b")
                assert store.runs()[0].counts == {}  # may still be looked at
                postgres.promote()
            events.append("waited")

        server._sleep = sleep
        store.commit(run, {("a", 0): 1}, COUNTS)
        assert events
        assert store.runs()[0].counts == COUNTS


def test_a_lease_that_was_taken_meanwhile_is_found_out(prepared: Prepared) -> None:
    line, store = prepared
    run = store.begin("users", "f")
    line.cut_commits(1, answered=False)
    server: Any = store._database

    def sleep(_seconds: float) -> None:
        with store._write() as connection:
            connection.exec_driver_sql("UPDATE leases SET epoch = epoch + 1, holder = 'x'")

    server._sleep = sleep
    with pytest.raises(LeaseError):
        store.commit(run, {("a", 0): 1}, COUNTS)


# ------------------------------------------------------------------------------- patience


class Time:
    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def server(time: Time, patience: float) -> PostgresServer:
    return PostgresServer(
        "postgresql://h/d", busy_seconds=1, patience=patience, sleep=time.sleep, clock=time
    )


def test_pauses_grow_up_to_a_bound_and_end_with_patience() -> None:
    time, tries = Time(), list[float]()

    def never() -> None:
        tries.append(time.now)
        raise ConnectionLost(str(len(tries)))

    with pytest.raises(ConnectionLost) as caught:
        server(time, 60).patiently(never)

    assert str(caught.value) == str(len(tries))  # the last of them
    assert tries[0] == 0
    assert tries[-1] == pytest.approx(60)
    assert len(tries) > 12
    assert max(time.pauses) <= 5
    assert time.pauses[0] <= 0.1


def test_without_patience_there_is_one_try() -> None:
    time, tries = Time(), list[int]()

    def never() -> None:
        tries.append(1)
        raise ConnectionLost("lost")

    with pytest.raises(ConnectionLost):
        server(time, 0).patiently(never)
    assert tries == [1]


def test_what_waiting_does_not_mend_is_not_tried_again() -> None:
    time, tries = Time(), list[int]()

    def full() -> None:
        tries.append(1)
        raise StateError("full")

    with pytest.raises(StateError, match="full"):
        server(time, 60).patiently(full)
    assert tries == [1]


def test_a_commit_of_unknown_outcome_is_told_as_such() -> None:
    time = Time()
    lost = PostgresServer(
        "postgresql://u@127.0.0.1:1/d", busy_seconds=1, patience=5, sleep=time.sleep, clock=time
    )
    with closing(lost), pytest.raises(StateError, match="can't be asked whether it is durable"):
        lost._was_committed("7")
    assert time.now == pytest.approx(5)
