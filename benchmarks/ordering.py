"""What `ordering: per_user` costs: whole runs with it and without, over the same rows.

    python benchmarks/ordering.py                  half a million rows, a few minutes
    python benchmarks/ordering.py --rows 200000    quicker

- A run reads one Arrow file, encodes, sends 64 requests at a time over plain HTTP and commits into
  SQLite, as `retl run` does. The server has a process and a core of its own and does nothing but
  read and answer, at once or after 50 ms; the client has the other core.
- `distinct`: a row per user, where the order costs most and gives nothing. `zipf`: 100,000 users,
  the busiest with 8 % of all rows, in any order. `blocks`: ten rows per user, side by side.
  `one`: all rows are one user's, so that one request at a time is all that order allows.
- They take turns, so that a noisy machine slows both; a ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import trustme
from _harness import report

from pipeline import load_config, run_sync
from pipeline.cli.loop import run_async

USERS, LATENCIES = ("distinct", "zipf", "blocks", "one"), (0.0, 0.05)
_CONFIG = """
version: 1
sources: {{files: {{type: file, path: "{path}"}}}}
destinations: {{cio: {{type: customerio, api_key: key, endpoint: "{url}"}}}}
syncs:
  users:
    source: files
    call: identify
    destinations: [cio]
    ordering: {ordering}
send: {{concurrency: 64}}
state: "sqlite:///{state}"
"""
# With `one`, and a latency, only one request at a time is allowed: there is nothing to aim at.
_GOALS = {"distinct": 0.75, "zipf": 0.3, "blocks": 0.7}


@dataclass(frozen=True)
class Turn:
    """What one run took. cpu: of the client, in seconds."""

    rows: int
    requests: int
    seconds: float
    cpu: float


class Server:
    """The sink beside us."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{self._said().split()[0]}/v1"

    def answers_after(self, seconds: float) -> None:
        """Set its latency."""
        assert self._process.stdin is not None  # noqa: S101 - asked for below
        print(seconds, file=self._process.stdin, flush=True)
        self._said()

    def _said(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - asked for below
        return self._process.stdout.readline()


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """The sink, in a process of its own."""
    certificate, pipe = folder / "server.pem", subprocess.PIPE
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    script = str(Path(__file__).with_name("_send_server.py"))
    command = [sys.executable, script, str(certificate)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        yield Server(process)


def users(kind: str, rows: int) -> npt.NDArray[np.int64]:
    """Whom each row is about."""
    if kind == "zipf":
        weights = 1 / np.arange(1, 100_001)
        return np.random.default_rng(7).choice(100_000, rows, p=weights / weights.sum())
    return {"distinct": np.arange(rows), "blocks": np.arange(rows) // 10, "one": np.zeros(rows)}[
        kind
    ].astype(np.int64)


def write_rows(path: Path, kind: str, rows: int) -> None:
    """Rows of about 400 bytes of JSON: a UUID-like id, words and numbers."""
    random = np.random.default_rng(7)
    words = np.array([f"word{index}" for index in range(500)])
    about = pa.array([" ".join(words[random.integers(0, 500, 30)]) for _ in range(1_000)])
    ids = pa.array([f"{user:032x}-{user % 7}" for user in users(kind, rows).tolist()])
    picked = pa.array(random.integers(0, 1_000, rows))
    table = pa.table(
        {"userId": ids, "about": about.take(picked), "score": picked, "at": np.arange(rows)}
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4_000)


def run(path: Path, url: str, ordering: str) -> Turn:
    """One run of all rows, measured from within."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "retl.yml")
        state = Path(folder, "state.db")
        config.write_text(_CONFIG.format(path=path, url=url, state=state, ordering=ordering))
        loaded = load_config(config)
        wall, cpu = time.perf_counter(), time.process_time()
        outcome = run_async(run_sync(loaded, "users"))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if outcome.exit_code:
        raise SystemExit(f"the run failed: {outcome.error}")
    counts = outcome.destinations["cio"]
    return Turn(counts.delivered, counts.requests, wall, cpu)


def measure(server: Server, path: Path, turns: int) -> dict[str, Any]:
    """Both ways in turns."""
    found: dict[str, list[Turn]] = {"none": [], "per_user": []}
    for _ in range(turns):
        for ordering, into in found.items():
            into.append(run(path, server.url, ordering))
    return {
        "rows_per_second": {
            name: round(statistics.median(turn.rows / turn.seconds for turn in of))
            for name, of in found.items()
        },
        "cpu_us_per_row": {
            name: round(statistics.median(turn.cpu / turn.rows for turn in of) * 1e6, 2)
            for name, of in found.items()
        },
        "requests": {name: of[-1].requests for name, of in found.items()},
        "ratio": round(
            statistics.median(
                plain.seconds / kept.seconds
                for plain, kept in zip(found["none"], found["per_user"], strict=True)
            ),
            3,
        ),
    }


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as server:
        for kind in USERS:
            path = Path(name, "rows.arrow")
            write_rows(path, kind, arguments.rows)
            run(path, server.url, "none")  # warm
            for latency in LATENCIES:
                server.answers_after(latency)
                found = measure(server, path, arguments.turns)
                figures[f"{kind}_{latency * 1e3:.0f}ms"] = found
                speed, cpu = found["rows_per_second"], found["cpu_us_per_row"]
                print(
                    f"{kind:8} {latency * 1e3:3.0f} ms: {speed['per_user']:9,} rows/s "
                    f"(none {speed['none']:9,}), {cpu['per_user']:.2f} ({cpu['none']:.2f}) us CPU "
                    f"a row, {found['requests']['per_user']} ({found['requests']['none']}) "
                    f"requests, ratio {found['ratio']:.2f}",
                    flush=True,
                )
            server.answers_after(0.0)
    ratios = {name: found["ratio"] for name, found in figures.items()}
    goals = {
        f"rows/s per_user to none, {name}": (ratio, ">=", _GOALS[name.partition("_")[0]])
        for name, ratio in ratios.items()
        if name.partition("_")[0] in _GOALS
    }
    report("ordering", figures, ratios, goals)


if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    main()
