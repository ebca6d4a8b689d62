"""Several processes and one state: killed in the middle of a commit, contending for a lease."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.checkpoint import SqlStore
from pipeline.model import Result

# Writes ever more of one run, and says so after each commit; row content names the row.
WRITER = """
import os, sys
from pipeline.checkpoint import SqlStore
from pipeline.model import Counts, DeadLetter, Reading

store = SqlStore("sqlite:///" + sys.argv[1], holder=f"here:{os.getpid()}:{sys.argv[2]}")
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


@pytest.mark.slow
def test_kill_9_leaves_a_prefix_that_the_next_process_goes_on_from(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    committed, ids = 0, set()
    for round_ in range(10):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(round_)],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            said = lines_until(writer, commits=round_ % 4)
            writer.send_signal(signal.SIGKILL)
        assert writer.returncode == -signal.SIGKILL
        assert said >= committed  # it went on from what the one before had said

        # At once: the lease's holder is of this host, and dead.
        with closing(
            SqlStore(f"sqlite:///{path}", holder=f"here:{os.getpid()}:r{round_}")
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
        assert rows == list(range(len(rows)))  # each once, and no gap
        assert len(rows) - committed in {0, 50}  # dead letters first
        assert all(each.letter.payload == b"%d" % each.letter.row * 200 for each in kept)
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert len(ids) == 1
    assert committed > 0


# Waits for a line on stdin, so that all begin at once.
CONTENDER = """
import os, sys
from pipeline.checkpoint import SqlStore
from pipeline.errors import LeaseError

sys.stdin.readline()
store = SqlStore("sqlite:///" + sys.argv[1], holder=f"here:{os.getpid()}:x")
try:
    print("won", store.begin("users", "f").id, flush=True)
except LeaseError as error:
    print("lost", error, flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_processes_that_open_a_new_state_at_once_contend_for_one_lease(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.db"
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(path)],
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
    with closing(SqlStore(f"sqlite:///{path}", holder=f"here:{os.getpid()}:y")) as store:
        assert store.begin("users", "f").resumed
