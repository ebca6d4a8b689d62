"""docs/metrics.md, written from the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.metrics.table import METRICS


def describe() -> Iterable[Sequence[str]]:
    """Rows of docs/metrics.md: name, kind, labels, meaning."""
    for each in METRICS:
        more = ""
        if each.values:
            more += " Starts with: " + ", ".join(f"`{value}`" for value in each.values) + "."
        if each.buckets:
            more += f" Buckets: {', '.join(f'{bound:,}' for bound in each.buckets)}."
        labels = ", ".join(f"`{label}`" for label in each.labels)
        yield (f"`{each.name}`", each.kind, labels, each.text + more)


_HEAD = """\
# Metrics

Written by `python -m pipeline.metrics`; change `pipeline/metrics/table.py`, not this file.

`retl run --metrics-port 9464` (or `metrics.port`, `RETL_METRICS_PORT`) serves these on `/metrics`,
beside the `process_*` metrics of the Python client. All of a sync's series are there from its
start, with value 0. Labels are names from the configuration or from a bounded list; what doesn't
fit is counted under `other`.

**The law.** `retl_rows_read_total = sum(retl_rows_total) + retl_rows_in_flight`, for each sync and
destination, at every scrape. A run that completes leaves nothing in flight, so a row that it lost
shows as a difference; [an alert](operations.md#retlconservationbroken) watches it.

**Short runs.** A scrape sees what is there when it comes: the last seconds of a process that ends
are in its logs and in `retl runs`, not here. The alerts that must not miss an end watch the
CronJob and its Jobs instead.
"""


def document() -> str:
    """docs/metrics.md."""
    head = ("metric", "type", "labels", "meaning")
    table = [head, ("---",) * 4, *describe()]
    return _HEAD + "\n" + "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n"
