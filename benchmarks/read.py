"""The reader against the official client, and against gRPC with nothing behind it.

    python benchmarks/read.py                         all shapes, then memory
    python benchmarks/read.py --shapes narrow         one of them
    python benchmarks/read.py --message-bytes 20000   small messages

A server in a process of its own, on the first core, replays ready messages; everybody else takes
turns in this process, on the last core. A turn reads one stream. A ratio is the median, over the
turns, of our time to another's: below 1 we are the faster. Goals are held to CPU time, which a
busy machine changes less; on an idle one the clock says the same.

- `reader` is a run's Source, each frame decoded; `reader, frames` does not decode them.
- `official client` is BigQueryReadClient, messages taken by `_pb`, batches decoded.
- The drains are gRPC alone: messages come as bytes, are counted, and thrown away. The limit is the
  faster of the two. `and Arrow`: for each message one batch is decoded that was at hand before,
  so nothing is parsed or copied: the limit of what gives rows.

Memory: see _read_memory.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterable
from typing import Any

import psutil
import pyarrow as pa
from _harness import report
from _read_memory import Point, peak
from _read_source import Canned, Served, serving
from _read_ways import AIO, AIO_ARROW, FRAMES, OFFICIAL, READER, SYNC, SYNC_ARROW, Ways, open_ways

# name -> (whose time, to whose: the fastest of these)
_RATIOS = {
    "reader to official client": (READER, (OFFICIAL,)),
    "reader to drain": (READER, (AIO, SYNC)),
    "frames to drain": (FRAMES, (AIO, SYNC)),
    "reader to drain and Arrow": (READER, (AIO_ARROW, SYNC_ARROW)),
}
_GOALS = {
    "reader to official client": 1.0,
    "reader to drain": 1.3,
    "frames to drain": 1.3,
    "reader to drain and Arrow": 1.3,
}
# (streams of the session, of which so many are read at a time)
_MEMORY = ((1, 4), (16, 4), (256, 4), (16, 16), (256, 256))
# In all streams together: 1.3 GB, of which a point reads what it has time for.
_MEMORY_MESSAGES = 1_280
_MEMORY_SECONDS = 2.5
_MEMORY_GROWTH = 1.3

Seconds = tuple[float, float]
"""By the clock, and of CPU."""


def measure(ways: Ways, served: Served, shape: Canned, rows: int, rounds: int) -> dict[str, Any]:
    """Rounds of turns over one stream of about so many rows."""
    messages = max(1, round(rows / shape.rows))
    server = psutil.Process(served.process)
    took: dict[str, list[Seconds]] = {name: [] for name in ways.all()}
    served_before, counted = 0.0, 0
    for number in range(rounds + 1):  # the first warms up
        if number == 1:
            served_before = _cpu(server)
        for name, way in ways.all().items():
            wall, cpu = time.perf_counter(), time.process_time()
            counted = way(shape, messages)
            took[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            if counted != messages * shape.rows:
                raise SystemExit(f"{name} lost rows: {counted} of {messages * shape.rows}")
    took = {name: turns[1:] for name, turns in took.items()}
    return {
        "columns": shape.columns,
        "messages": messages,
        "message_bytes": shape.nbytes,
        "rows": counted,
        "rows_per_second": {
            name: counted / statistics.median(wall for wall, _ in turns)
            for name, turns in took.items()
        },
        "cpu_seconds_per_million_rows": {
            name: statistics.median(cpu for _, cpu in turns) / counted * 1e6
            for name, turns in took.items()
        },
        "server_cpu_seconds_per_million_rows": (_cpu(server) - served_before)
        / (rounds * len(took) * counted)
        * 1e6,
        "ratios": {name: _ratio(took, *pair) for name, pair in _RATIOS.items()},
    }


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _ratio(took: dict[str, list[Seconds]], ours: str, others: Iterable[str]) -> dict[str, float]:
    """Medians over the rounds, to the other that took least by the median."""
    found = {}
    for place, kind in enumerate(("wall", "cpu")):
        found[kind] = max(
            statistics.median(
                a[place] / b[place] for a, b in zip(took[ours], took[other], strict=True)
            )
            for other in others
        )
    return found


def show(name: str, figures: dict[str, Any]) -> None:
    """A table of one shape."""
    print(
        f"\n{name}: {figures['columns']} columns, {figures['messages']:,} messages of "
        f"{figures['message_bytes']:,} bytes, {figures['rows']:,} rows"
    )
    print(f"{'':18}{'rows/s':>14}{'CPU-s per million rows':>26}")
    for way, rate in figures["rows_per_second"].items():
        cpu = figures["cpu_seconds_per_million_rows"][way]
        print(f"{way:18}{rate:>14,.0f}{cpu:>26.4f}")
    print(f"{'server':18}{'':14}{figures['server_cpu_seconds_per_million_rows']:>26.4f}")
    for pair, ratio in figures["ratios"].items():
        print(f"{pair:28} {ratio['wall']:.2f} by the clock, {ratio['cpu']:.2f} in CPU time")


def measure_memory(served: Served) -> dict[str, dict[str, Any]]:
    """A point for each number of streams; every stream has its share of the messages."""
    shape, points = served.shapes["users"], {}
    print(f"\n{'streams':>8}{'at a time':>11}{'idle MB':>9}{'peak MB':>9}{'budget MB':>11}")
    for streams, at_a_time in _MEMORY:
        asked = Point(streams, at_a_time, _MEMORY_MESSAGES // streams, _MEMORY_SECONDS)
        point = peak(served.target, shape, asked)
        points[f"{streams} streams, {at_a_time} at a time"] = point
        print(
            f"{streams:>8}{at_a_time:>11}{point['idle_rss_mb']:>9.0f}{point['peak_rss_mb']:>9.0f}"
            f"{point['peak_buffer_mb']:>11.1f}"
        )
    return points


def goals(
    shapes: dict[str, Any], memory: dict[str, dict[str, Any]]
) -> dict[str, tuple[float, str, float]]:
    """What is promised, of what was measured."""
    wanted = {
        f"{name}, {pair}": (figures["ratios"][pair]["cpu"], "<=", goal)
        for name, figures in shapes.items()
        for pair, goal in _GOALS.items()
    }
    if memory:
        wanted["peak RSS, 256 streams to 1, 4 at a time"] = (_growth(memory), "<=", _MEMORY_GROWTH)
    return wanted


def _growth(memory: dict[str, dict[str, Any]]) -> float:
    most, least = memory["256 streams, 4 at a time"], memory["1 streams, 4 at a time"]
    return float(most["peak_rss_mb"] / least["peak_rss_mb"])


def main() -> None:
    """Parse, measure each shape and memory, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", nargs="*", help="which ones; all unless said; none: memory")
    parser.add_argument("--rows", type=int, help="in a turn; unless said, 100 messages")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--message-bytes", type=int, default=1_000_000)
    parser.add_argument("--no-memory", action="store_true", help="ratios only")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    shapes, memory = {}, {}
    with serving(arguments.message_bytes) as served:
        with open_ways(served) as ways:
            for name, shape in served.shapes.items():
                if arguments.shapes is None or name in arguments.shapes:
                    rows = arguments.rows or 100 * shape.rows
                    shapes[name] = measure(ways, served, shape, rows, arguments.rounds)
                    show(name, shapes[name])
        if not arguments.no_memory:
            memory = measure_memory(served)
    print()
    ratios = {
        f"{name}, {pair}, {kind}": ratio
        for name, figures in shapes.items()
        for pair, both in figures["ratios"].items()
        for kind, ratio in both.items()
    }
    if memory:
        ratios["peak RSS, 256 streams to 1, 4 at a time"] = _growth(memory)
    report(
        "read",
        figures={"shapes": shapes, "memory": memory},
        ratios=ratios,
        goals=goals(shapes, memory),
    )


if __name__ == "__main__":
    main()
