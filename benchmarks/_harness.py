"""What every benchmark shares: the local services in processes of their own, and the last line.

The last line of a benchmark is one JSON object: bench, machine, figures, ratios, goals, met.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def local_service(kind: str, *options: str) -> Iterator[dict[str, str]]:
    """`retl local KIND` in a process of its own; yields the addresses it prints."""
    command = [sys.executable, "-m", "pipeline", "local", kind, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - asked for above
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version()}


def peak_rss_mb() -> float:
    """The most memory this process has held, in MB (10^6 bytes)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def report(
    bench: str,
    figures: Mapping[str, Any],
    ratios: Mapping[str, float],
    goals: Mapping[str, tuple[float, str, float]],
) -> None:
    """Print the goals one by one, and the last line. goals: name -> (value, "<=" or ">=", goal)."""
    met = {
        name: value >= goal if sign == ">=" else value <= goal
        for name, (value, sign, goal) in goals.items()
    }
    for name, (value, sign, goal) in goals.items():
        print(f"{'ok  ' if met[name] else 'MISS'} {name}: {value:,.2f} (goal {sign} {goal:,})")
    print(
        json.dumps(
            {
                "bench": bench,
                "machine": machine(),
                "figures": figures,
                "ratios": ratios,
                "goals": {name: f"{sign} {goal:g}" for name, (_, sign, goal) in goals.items()},
                "met": all(met.values()),
            }
        )
    )
