"""A state exported and imported: what is in the document, what arrives, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import KINDS, LEASE, Clock

from pipeline.checkpoint import SqlStore
from pipeline.errors import ConfigError, LeaseError, UnusableState
from pipeline.model import Counts, DeadLetter, Reading, Result, Window
from pipeline.ports import Imported, Store

READING = Reading(
    streams=("s0",), schema=b"\x00\xff", query_started=500, rows=10, details={"job": "j"}
)
COUNTS = {"cio": Counts(read=10, delivered=9, dead_lettered=1)}
SECRET = b"row content"

Opener = Callable[..., SqlStore]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Opener]:
    """`opened("a")`: the state of that name."""
    urls: dict[str, str] = {}
    made: list[SqlStore] = []

    def start(name: str, holder: str = "host:1:a", *, kind: str = request.param) -> SqlStore:
        if name not in urls:
            urls[name] = KINDS[kind](request, tmp_path / name)
        made.append(SqlStore(urls[name], holder=holder, now=clock, lease_seconds=LEASE))
        return made[-1]

    yield start
    for store in made:
        store.close()


def complete(store: Store, sync: str = "users", *, query_started: int = 500) -> str:
    run = store.begin(sync, "f")
    reading = Reading(streams=READING.streams, schema=READING.schema, query_started=query_started)
    store.attach(run, reading)
    store.finish(run, Result.COMPLETE, COUNTS)
    return run.id


def moved(store: Store, *, history: bool = True) -> dict[str, Any]:
    """Exported, and through the text that a file would hold."""
    found: dict[str, Any] = json.loads(json.dumps(store.export_state(history=history)))
    return found


# ------------------------------------------------------------------------------- what is in it


def test_the_windows(opened: Opener, clock: Clock) -> None:
    store = opened("a")
    complete(store)
    store.set_window("orders", 42)
    assert moved(store, history=False) == {
        "format": "retl-state",
        "version": 1,
        "exported": clock.time,
        "syncs": {
            "orders": {"last_sync_time": 42, "completed_runs": 0},
            "users": {"last_sync_time": 500, "completed_runs": 1},
        },
    }


def test_no_payload_is_in_it(opened: Opener) -> None:
    store = opened("a")
    run = store.begin("users", "f")
    store.attach(run, READING)
    bad = DeadLetter(stream=0, row=1, reason="missing_id", message="no", payload=SECRET)
    store.add_dead_letters(run, "cio", [bad])
    store.finish(run, Result.COMPLETE, COUNTS)
    assert SECRET.decode() not in json.dumps(moved(store))


# ------------------------------------------------------------------------------- what arrives


def test_what_arrives_is_what_was_there(opened: Opener) -> None:
    here, there = opened("a"), opened("b")
    runs = [complete(here, query_started=500 + index) for index in range(3)]
    complete(here, "orders")
    here.keep_report(runs[0], {"seconds": 1.5})
    here.keep_report(runs[0], {"seconds": 2})

    done = there.import_state(moved(here))

    assert done == Imported(syncs=("orders", "users"), runs=4, kept=())
    assert there.runs() == here.runs()
    assert there.run(runs[0]) == here.run(runs[0])
    assert there.syncs() == here.syncs()
    assert moved(there) == moved(here)


@pytest.mark.parametrize("kind", KINDS)
def test_from_any_kind_of_state_to_any(opened: Opener, kind: str) -> None:
    here, there = opened("a"), opened("b", kind=kind)
    complete(here)
    there.import_state(moved(here))
    assert (there.syncs(), there.runs()) == (here.syncs(), here.runs())


def test_an_unfinished_run_becomes_a_window_not_sent_yet(opened: Opener) -> None:
    here, there = opened("a"), opened("b")
    complete(here)
    run = here.begin("users", "f", full=True)  # whose window is not the one after the last run
    here.attach(run, READING)
    here.commit(run, {("cio", 0): 5}, COUNTS)
    there.import_state(moved(here))
    (arrived, _) = there.runs()
    assert arrived.result is Result.FAILED
    assert arrived.finished is not None
    assert "state was moved" in arrived.error
    following = there.begin("users", "f")
    assert (following.window, following.resumed) == (run.window, False)


def test_without_history_only_the_windows_arrive(opened: Opener) -> None:
    here, there = opened("a"), opened("b")
    complete(here)
    assert there.import_state(moved(here, history=False)).runs == 0
    assert there.runs() == []
    assert there.window("users") == Window(start=500, sequence=2)


def test_the_same_again_changes_nothing(opened: Opener) -> None:
    here, there = opened("a"), opened("b")
    complete(here)
    there.import_state(moved(here))
    before = moved(there)
    assert there.import_state(moved(here)) == Imported(syncs=("users",), runs=0, kept=("users",))
    assert moved(there) == before


def test_syncs_that_are_not_in_it_are_left_alone(opened: Opener) -> None:
    here, there = opened("a"), opened("b")
    complete(here)
    complete(there, "orders", query_started=900)
    there.import_state(moved(here))
    assert there.window("orders") == Window(start=900, sequence=2)


# ------------------------------------------------------------------------------- what is refused


def test_a_sync_that_is_further_here(opened: Opener) -> None:
    here, there = opened("a"), opened("b")
    complete(here, query_started=400)
    complete(here, "orders")
    complete(there, query_started=401)
    before = moved(there)
    with pytest.raises(UnusableState, match=r"users is further here \(401 after 400\).*--force"):
        there.import_state(moved(here))
    assert moved(there) == before  # nothing of orders either
    there.import_state(moved(here), force=True)
    assert there.window("users") == Window(start=400, sequence=2)
    assert there.window("orders") == Window(start=500, sequence=2)


def test_a_number_of_a_window_never_comes_again(opened: Opener) -> None:
    here, there = opened("a"), opened("b")
    complete(here)
    for _ in range(3):
        complete(there)
    there.import_state(moved(here))
    assert there.window("users").sequence == 4  # as message ids are made of it


def test_an_unfinished_run_here(opened: Opener) -> None:
    here, there = opened("a"), opened("b")
    complete(here)
    run = there.begin("users", "f")
    there.finish(run, Result.INTERRUPTED, {})
    with pytest.raises(UnusableState, match=f"unfinished run here \\({run.id}\\)"):
        there.import_state(moved(here))
    assert there.syncs()[0].unfinished == run.id
    there.import_state(moved(here), force=True)
    assert there.syncs()[0].unfinished is None
    assert "another state was imported" in there.runs()[0].error
    assert there.window("users") == Window(start=500, sequence=2)


def test_a_sync_that_is_running_whatever_is_forced(opened: Opener, clock: Clock) -> None:
    here, there, other = opened("a"), opened("b"), opened("b", "elsewhere:2:b")
    complete(here)
    run = other.begin("users", "f")
    # --force is no way past it: the run would go on sending, and settle nothing.
    for force in (False, True):
        with pytest.raises(LeaseError, match=r"users.*under way \(elsewhere:2\)"):
            there.import_state(moved(here), force=force)
    other.commit(run, {}, {})  # it was not disturbed
    clock.time += 61
    there.import_state(moved(here), force=True)
    with pytest.raises(LeaseError):
        other.commit(run, {}, {})


def broken(**changes: Any) -> dict[str, Any]:
    run = {
        "run": "r", "sync": "users", "window_start": 0, "window_sequence": 1, "attempt": 1,
        "fingerprint": "f", "started": 1.0, "finished": 2.0, "result": "complete", "error": "",
        "reading": None, "counts": {}, "query_key": None, "done": None, "reports": [],
    }  # fmt: skip
    document = {
        "format": "retl-state",
        "version": 1,
        "exported": 1.0,
        "syncs": {"users": {"last_sync_time": 1, "completed_runs": 1}},
        "runs": [run],
    }
    of_run = {key: changes.pop(key) for key in list(changes) if key in run}
    run.update(of_run)
    return document | changes


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "no exported state"),
        ({}, "no exported state"),
        (broken(format="other"), "no exported state"),
        (broken(version=2), "newer retl .*version 2, this one knows 1"),
        (broken(version=0), "damaged at version"),
        (broken(syncs=None), "damaged at syncs"),
        (broken(syncs={"users": {"last_sync_time": -1, "completed_runs": 0}}), "last_sync_time"),
        (broken(more=1), "damaged at more"),
        (broken(sync="nobody"), r"damaged at runs\.0\.sync"),
        (broken(result="perhaps"), r"damaged at runs\.0\.result"),
        (broken(counts={"cio": {"unknown": 1}}), r"damaged at runs\.0: .*counts"),
        (broken(reading={"streams": []}), r"damaged at runs\.0: Its reading"),
    ],
)
def test_what_is_no_such_document(opened: Opener, document: Any, said: str) -> None:
    store = opened("a")
    with pytest.raises(ConfigError, match=said):
        store.import_state(document)
    assert store.syncs() == []


def test_the_document_of_the_refusals_is_fine_itself(opened: Opener) -> None:
    assert opened("a").import_state(broken()).runs == 1
