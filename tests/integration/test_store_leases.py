"""Leases: one run of a sync at a time, and a fence against those that come back too late."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from stores import COUNTS, LEASE, READING, Stores, letter

from pipeline.checkpoint import SqlStore
from pipeline.errors import LeaseError
from pipeline.model import Result
from pipeline.ports import OpenRun


def test_a_live_lease_is_refused_until_it_expires(stores: Stores, store: SqlStore) -> None:
    run = store.begin("users", "f")
    other = stores.open("far:99:b")

    stores.clock.time += LEASE - 1
    with pytest.raises(LeaseError, match=r"users: another run is under way \(elsewhere:1\).* 1 s"):
        other.begin("users", "f")
    stores.clock.time += 1
    assert other.begin("users", "f").id == run.id


def test_the_same_holder_can_not_run_a_sync_twice_at_once(store: SqlStore) -> None:
    store.begin("users", "f")

    with pytest.raises(LeaseError):
        store.begin("users", "f")


WRITES: dict[str, Callable[[SqlStore, OpenRun], object]] = {
    "attach": lambda store, run: store.attach(run, READING),
    "commit": lambda store, run: store.commit(run, {("a", 0): 1}, COUNTS),
    "dead letters": lambda store, run: store.add_dead_letters(run, "a", [letter(1)]),
    "restart": lambda store, run: store.restart(run, "gone"),
    "finish": lambda store, run: store.finish(run, Result.FAILED, COUNTS, "x"),
    "complete": lambda store, run: store.finish(run, Result.COMPLETE, COUNTS),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_run_that_lost_its_lease_changes_nothing(
    stores: Stores, store: SqlStore, write: Callable[[SqlStore, OpenRun], object]
) -> None:
    run = store.begin("users", "f")
    store.attach(run, replace(READING, query_started=77))
    stores.clock.time += LEASE
    other = stores.open("far:99:b")
    theirs = other.begin("users", "f")
    before = (other.runs(), other.window("users"), other.dead_letters())

    with pytest.raises(LeaseError, match="users: this run's lease was lost"):
        write(store, run)

    assert (other.runs(), other.window("users"), other.dead_letters()) == before
    other.commit(theirs, {("a", 0): 2}, {})
    other.finish(theirs, Result.INTERRUPTED, {})
    assert other.begin("users", "f").checkpoints == {("a", 0): 2}


@pytest.mark.parametrize("write", [name for name in WRITES if name not in {"finish", "complete"}])
def test_every_write_renews_the_lease_an_expired_one_too(
    stores: Stores, store: SqlStore, write: str
) -> None:
    run = store.begin("users", "f")
    stores.clock.time += LEASE + 5  # nobody took it

    WRITES[write](store, run)

    stores.clock.time += LEASE - 1
    with pytest.raises(LeaseError):
        stores.open("far:99:b").begin("users", "f")


def test_the_same_holder_is_fenced_off_by_its_own_next_run(stores: Stores, store: SqlStore) -> None:
    run = store.begin("users", "f")
    stores.clock.time += LEASE
    again = store.begin("users", "f")

    with pytest.raises(LeaseError):
        store.commit(run, {("a", 0): 1}, {})
    store.commit(replace(again, reading=READING), {("a", 0): 1}, {})


@pytest.mark.parametrize("stores", ["sqlite"], indirect=True)
def test_a_dead_process_of_this_host_is_taken_over_at_once(stores: Stores) -> None:
    child = subprocess.run([sys.executable, "-c", ""], check=True)
    assert child.returncode == 0
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    run = stores.open(f"here:{gone.pid}:a").begin("users", "f")

    with pytest.raises(LeaseError):
        stores.open("far:1:b").begin("users", "f")
    assert stores.open("here:2:c").begin("users", "f").id == run.id


def test_a_live_process_of_this_host_is_not(stores: Stores) -> None:
    stores.open(f"here:{os.getppid()}:a").begin("users", "f")

    with pytest.raises(LeaseError):
        stores.open("here:2:b").begin("users", "f")


@pytest.mark.parametrize("stores", ["sqlite"], indirect=True)
def test_a_restarted_container_takes_over_from_itself(stores: Stores) -> None:
    """The same host name and process id again, but another nonce."""
    before = stores.open(f"pod-0:{os.getpid()}:a")
    run = before.begin("users", "f")
    after = stores.open(f"pod-0:{os.getpid()}:b")
    with pytest.raises(LeaseError):  # both live in this very process
        after.begin("users", "f")

    before.close()

    assert after.begin("users", "f").id == run.id


@pytest.mark.parametrize("stores", ["postgres"], indirect=True)
def test_of_a_server_only_time_tells_that_a_holder_is_gone(stores: Stores) -> None:
    """Two pods of one index of a Job have one host name, and both are process 1."""
    before = stores.open(f"pod-0:{os.getpid()}:a")
    run = before.begin("users", "f")
    before.close()
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    stores.open(f"pod-0:{gone.pid}:a").begin("events", "f")
    after = stores.open(f"pod-0:{os.getpid()}:b")

    for sync in ("users", "events"):
        with pytest.raises(LeaseError):
            after.begin(sync, "f")
    stores.clock.time += LEASE

    assert after.begin("users", "f").id == run.id


@pytest.mark.parametrize("holder", ["", "x", "here:pid:a", "here:0:a", "here:-1:a", "a:b"])
def test_a_holder_of_another_form_is_alive_until_its_lease_expires(
    stores: Stores, holder: str
) -> None:
    stores.open(holder).begin("users", "f")
    other = stores.open("here:2:b")

    with pytest.raises(LeaseError):
        other.begin("users", "f")
    stores.clock.time += LEASE
    other.begin("users", "f")
