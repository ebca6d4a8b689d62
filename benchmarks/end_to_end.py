"""The whole path: pre-serialized local BigQuery -> engine -> local Customer.io, three processes.

    python benchmarks/end_to_end.py                   1M and 10M rows of 13 columns
    python benchmarks/end_to_end.py --rows 200000     quicker

The engine runs in a process of its own, as `retl run` does: the real Google clients, encoding with
message ids, sending, checkpoints into SQLite. Its CPU time is taken around the run, so servers,
start-up and imports do not count; its memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _harness import local_service, peak_rss_mb, report

_CONFIG = """
version: 1
sources:
  local: {{type: bigquery, project: local, endpoint: "{rest}", storage_endpoint: "{storage}"}}
destinations:
  customerio: {{type: customerio, api_key: local-key, endpoint: "{customerio}/v1"}}
syncs:
  users:
    source: local
    call: identify
    destinations: [customerio]
    columns: {{id: userId}}
    query: SELECT * FROM bench.users
"""
_ROWS_PER_CPU_SECOND, _PEAK_RSS_MB, _RSS_GROWTH = 250_000.0, 400.0, 1.3


def client(config: Path) -> dict[str, Any]:
    """One run, measured from within its process."""
    from pipeline import load_config, run_sync  # noqa: PLC0415 - only the client needs the engine
    from pipeline.cli.loop import run_async  # noqa: PLC0415

    loaded = load_config(config)
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = run_async(run_sync(loaded, "users"))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if outcome.exit_code:
        raise SystemExit(f"the run failed: {outcome.error}")
    counts = outcome.destinations["customerio"]
    return {
        "rows": counts.delivered,
        "requests": counts.requests,
        "megabytes": counts.bytes_sent / 1e6,
        "seconds": wall,
        "cpu_seconds": cpu,
        "rows_per_second": counts.delivered / wall,
        "rows_per_cpu_second": counts.delivered / cpu,
        "peak_rss_mb": peak_rss_mb(),
    }


def measure(rows: int, environment: dict[str, str]) -> dict[str, Any]:
    """One run of so many rows against fresh services."""
    with (
        local_service("bigquery", "--synthetic", f"users={rows}") as bigquery,
        local_service("customerio", "--mode", "sink") as customerio,
        tempfile.TemporaryDirectory() as folder,
    ):
        config = Path(folder, "retl.yml")
        config.write_text(
            _CONFIG.format(
                rest=bigquery["rest"], storage=bigquery["storage"], customerio=customerio["url"]
            ),
            encoding="utf-8",
        )
        command = [sys.executable, __file__, "--client", str(config)]
        output = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | environment
        ).stdout
        figures: dict[str, Any] = json.loads(output)
    if figures["rows"] != rows:
        raise SystemExit(f"{rows} rows asked for, {figures['rows']} delivered")
    print(
        f"{rows:>12,} rows  {figures['seconds']:6.2f} s  "
        f"{figures['rows_per_second']:>10,.0f} rows/s  "
        f"{figures['rows_per_cpu_second']:>10,.0f} rows per client CPU-second  "
        f"{figures['peak_rss_mb']:6.0f} MB peak"
    )
    return figures


def main() -> None:
    """Parse, measure each size, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 10_000_000])
    parser.add_argument("--gzip", action="store_true", help="compress request bodies")
    parser.add_argument("--client", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        print(json.dumps(client(arguments.client)))
        return
    environment = {"RETL_COMPRESSION": "gzip"} if arguments.gzip else {}
    runs = {str(rows): measure(rows, environment) for rows in arguments.rows}
    least, most = (runs[str(pick(arguments.rows))] for pick in (min, max))
    growth = most["peak_rss_mb"] / least["peak_rss_mb"]
    report(
        "end_to_end",
        figures=runs,
        ratios={"peak_rss_of_most_rows_to_least": growth},
        goals={
            "rows per client CPU-second": (
                min(run["rows_per_cpu_second"] for run in runs.values()),
                ">=",
                _ROWS_PER_CPU_SECOND,
            ),
            "peak RSS, MB": (
                max(run["peak_rss_mb"] for run in runs.values()),
                "<=",
                _PEAK_RSS_MB,
            ),
            "peak RSS of the most rows to the least": (growth, "<=", _RSS_GROWTH),
        },
    )


if __name__ == "__main__":
    main()
