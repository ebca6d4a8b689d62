"""What the shards of a run come to together: each row once, whoever delivered it, however often.

What was read is in the Checkpoints, over all processes there ever were. RUNS has what earlier
processes counted beside it (dead letters, requests), and each shard what is its own. A run that
nobody shares has all of it in RUNS. All functions work inside the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from pipeline.checkpoint.schema import CHECKPOINTS, SHARDS, load_counts
from pipeline.model import Counts


def shards_of(connection: sa.Connection, run: str) -> Sequence[sa.Row[Any]]:
    """The rows of SHARDS of a run, by index; none when nobody shares it, or it has ended."""
    query = sa.select(SHARDS).where(SHARDS.c.run == run).order_by(SHARDS.c.shard)
    return connection.execute(query).all()


def totals(connection: sa.Connection, row: sa.Row[Any]) -> dict[str, Counts]:
    """The counts of a run, of all its processes. row: of RUNS."""
    base = load_counts(row.counts)
    shards = shards_of(connection, row.id) if row.job is not None else ()
    if not shards:
        return base
    finished = finished_earlier(row)
    counted = covered(
        summed([base, *(load_counts(each.counts) for each in shards)]),
        settled_rows(connection, row.id).items(),
    )
    return counted | {name: kept for name, kept in base.items() if name in finished}


def covered(counts: Mapping[str, Counts], settled: Iterable[tuple[str, int]]) -> dict[str, Counts]:
    """The counts, with what was read and delivered by the Checkpoints.

    settled: destination and rows, any number of times each.
    """
    read = dict.fromkeys(counts, 0)
    for destination, rows in settled:
        read[destination] = read.get(destination, 0) + rows
    found = {}
    for name, rows in read.items():
        kept = counts.get(name, Counts())
        found[name] = replace(kept, read=rows, delivered=rows - kept.dead_lettered)
    return found


def summed(many: Iterable[Mapping[str, Counts]]) -> dict[str, Counts]:
    """By destination."""
    total: dict[str, Counts] = {}
    for counts in many:
        for name, each in counts.items():
            total[name] = total.get(name, Counts()) + each
    return total


def settled_rows(connection: sa.Connection, run: str) -> dict[str, int]:
    """Destination -> rows below its Checkpoints, over all streams."""
    query = (
        sa.select(CHECKPOINTS.c.destination, sa.func.sum(CHECKPOINTS.c.rows))
        .where(CHECKPOINTS.c.run == run)
        .group_by(CHECKPOINTS.c.destination)
    )
    return {destination: int(rows) for destination, rows in connection.execute(query)}


def finished_earlier(row: sa.Row[Any]) -> frozenset[str]:
    """Destinations that had all rows before this attempt: it has no Checkpoints of them."""
    return frozenset(json.loads(row.done or "[]"))
