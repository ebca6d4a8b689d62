"""Several processes and one state: killed or stopped in mid-commit, contending for a lease."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from stores import Stores

from pipeline.checkpoint import SqlStore
from pipeline.errors import StateError
from pipeline.model import Counts, Result

# Writes ever more of one run, and says so after each commit; row content names the row.
WRITER = """
import os, sys
from pipeline.checkpoint import SqlStore
from pipeline.model import Counts, DeadLetter, Reading

store = SqlStore(sys.argv[1], holder=f"here:{os.getpid()}:{sys.argv[2]}")
run = store.begin("users", "f")
if run.reading is None:
    store.attach(run, Reading(streams=("s",), schema=b"x", query_started=5))
row = run.checkpoints.get(("a", 0), 0)
print("ready", row, flush=True)
while True:
    letters = [
        DeadLetter(stream=0, row=each, reason="r", message="m", payload=b"%d" % each * 200)
        for each in range(row, row + 50)
    ]
    store.add_dead_letters(run, "a", letters)
    row += 50
    store.commit(run, {("a", 0): row, ("b", 0): row}, {"a": Counts(read=row)})
    print(row, flush=True)
"""


def lines_until(process: subprocess.Popen[str], commits: int) -> int:
    """Read what the writer says, up to this many commits; the rows it has committed."""
    assert process.stdout is not None
    committed = int(process.stdout.readline().split()[1])
    for _ in range(commits):
        committed = int(process.stdout.readline())
    return committed


def later() -> float:
    """When every lease that a process holds has ended, by whichever clock."""
    return time.time() + 3_600


@pytest.mark.slow
def test_kill_9_leaves_a_prefix_that_the_next_process_goes_on_from(stores: Stores) -> None:
    committed, ids = 0, set()
    # In a file, the lease of a dead process of this host may be taken at once.
    now = None if stores.kind == "sqlite" else later
    for round_ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, stores.url, str(round_)],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            said = lines_until(writer, commits=round_ % 4)
            writer.send_signal(signal.SIGKILL)
        assert writer.returncode == -signal.SIGKILL
        assert said >= committed  # it went on from what the one before had said

        with closing(
            SqlStore(stores.url, holder=f"here:{os.getpid()}:r{round_}", now=now)
        ) as store:
            run = store.begin("users", "f")
            kept = store.dead_letters(limit=1_000_000)
            store.finish(run, Result.INTERRUPTED, {})
        ids.add(run.id)
        committed = run.checkpoints.get(("a", 0), 0)
        assert committed >= said
        assert committed == run.checkpoints.get(("b", 0), 0)
        assert run.counts["a"].read == committed if committed else not run.counts
        rows = sorted(each.letter.row for each in kept)
        assert rows == list(range(committed))  # each once, no gap, none that will be read again
        assert all(each.letter.payload == b"%d" % each.letter.row * 200 for each in kept)
    if stores.kind == "sqlite":
        with closing(sqlite3.connect(stores.url.removeprefix("sqlite:///"))) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert len(ids) == 1
    assert committed > 0


# Waits for a line on stdin, so that all begin at once.
CONTENDER = """
import os, sys
from pipeline.checkpoint import SqlStore
from pipeline.errors import LeaseError

sys.stdin.readline()
store = SqlStore(sys.argv[1], holder=f"here:{os.getpid()}:x")
try:
    print("won", store.begin("users", "f").id, flush=True)
except LeaseError as error:
    print("lost", error, flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_processes_that_open_a_new_state_at_once_contend_for_one_lease(stores: Stores) -> None:
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, stores.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for each in contenders:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    said = []
    for each in contenders:
        assert each.stdout is not None
        said.append(each.stdout.readline().split(" ", 1))
    for each in contenders:
        each.communicate("end\n")

    assert sorted(word for word, _ in said) == ["lost", "lost", "lost", "won"]
    winner = contenders[[word for word, _ in said].index("won")]
    assert all(f"here:{winner.pid}" in rest for word, rest in said if word == "lost")
    assert all(each.returncode == 0 for each in contenders)
    # The winner ended without finishing its run: it is there to be gone on with.
    with closing(SqlStore(stores.url, holder=f"here:{os.getpid()}:y", now=later)) as store:
        assert store.begin("users", "f").resumed


# Does on its run what it is told by lines on stdin; says what became of it.
OBEDIENT = """
import os, signal, sys
from pipeline.checkpoint import SqlStore, runs
from pipeline.errors import StateError
from pipeline.model import Counts, DeadLetter, Reading, Result

store = SqlStore(sys.argv[1], holder="one:1:a", busy_seconds=float(sys.argv[2]))
run = store.begin("users", "f")
letter = DeadLetter(stream=0, row=9, reason="r", message="m", payload=b"x")
reading = Reading(streams=("s",), schema=b"x", query_started=5)
commit = lambda: store.commit(run, {("a", 0): 9}, {"a": Counts(read=9)})

def stop_within():
    set_checkpoints = runs.set_checkpoints
    def stop(*given):
        set_checkpoints(*given)
        runs.set_checkpoints = set_checkpoints
        os.kill(os.getpid(), signal.SIGSTOP)
    runs.set_checkpoints = stop
    commit()

does = {
    "attach": lambda: store.attach(run, reading),
    "letters": lambda: store.add_dead_letters(run, "a", [letter]),
    "commit": commit,
    "stop within": stop_within,
    "restart": lambda: store.restart(run, "gone"),
    "finish": lambda: store.finish(run, Result.COMPLETE, {}),
}
print(run.id, flush=True)
for line in sys.stdin:
    try:
        does[line.strip()]()
        print("done", flush=True)
    except StateError as error:
        print(type(error).__name__, flush=True)
"""


@contextmanager
def obedient(stores: Stores, *, busy_seconds: float = 10) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", OBEDIENT, stores.url, str(busy_seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str], *words: str) -> list[str]:
    assert process.stdin is not None
    assert process.stdout is not None
    said = []
    for word in words:
        process.stdin.write(f"{word}\n")
        said.append(process.stdout.readline().strip())
    return said


def stopped(process: subprocess.Popen[str]) -> None:
    """Wait until the process has stopped."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


@pytest.mark.slow
def test_a_stopped_process_that_wakes_when_its_lease_was_taken_settles_nothing(
    stores: Stores,
) -> None:
    with obedient(stores) as sleeper:
        assert sleeper.stdout is not None
        run = sleeper.stdout.readline().strip()
        assert told(sleeper, "attach", "commit") == ["done", "done"]
        sleeper.send_signal(signal.SIGSTOP)
        stopped(sleeper)
        with closing(SqlStore(stores.url, holder="other:1:b", now=later)) as store:
            mine = store.begin("users", "f")
            assert (mine.id, mine.checkpoints) == (run, {("a", 0): 9})
            store.commit(mine, {("a", 0): 12}, {"a": Counts(read=12)})
            before = (store.runs(), store.dead_letters(), store.window("users"))

            sleeper.send_signal(signal.SIGCONT)
            said = told(sleeper, "commit", "letters", "attach", "restart", "finish")

            assert said == ["LeaseError"] * 5
            assert (store.runs(), store.dead_letters(), store.window("users")) == before
            store.finish(mine, Result.COMPLETE, {})
            assert store.window("users").start == 5


@pytest.mark.slow
@pytest.mark.parametrize("stores", ["postgres"], indirect=True)
def test_a_process_that_stops_within_a_transaction_is_fenced_off_all_the_same(
    stores: Stores,
) -> None:
    with obedient(stores, busy_seconds=0.5) as sleeper:
        assert sleeper.stdin is not None
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        sleeper.stdin.write("stop within\n")
        stopped(sleeper)
        # Waits until the server ends the transaction, which has the row of the lease locked.
        with closing(SqlStore(stores.url, holder="other:1:b", now=later)) as store:
            mine = store.begin("users", "f")
            assert mine.checkpoints == {}

            sleeper.send_signal(signal.SIGCONT)

            assert sleeper.stdout.readline().strip() == "LeaseError"
            store.commit(mine, {("a", 0): 12}, {})
            assert told(sleeper, "commit", "finish") == ["LeaseError"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("stores", ["sqlite"], indirect=True)
def test_a_process_that_stops_within_a_transaction_keeps_the_file(stores: Stores) -> None:
    """Nobody can take the lease then, and nothing is lost when it wakes."""
    with obedient(stores) as sleeper:
        assert sleeper.stdin is not None
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        sleeper.stdin.write("stop within\n")
        stopped(sleeper)
        with closing(
            SqlStore(stores.url, holder="other:1:b", now=later, busy_seconds=0.1)
        ) as store:
            with pytest.raises(StateError, match="was locked by another writer"):
                store.begin("users", "f")

            sleeper.send_signal(signal.SIGCONT)

            assert sleeper.stdout.readline().strip() == "done"
            assert store.begin("users", "f").checkpoints == {("a", 0): 9}
