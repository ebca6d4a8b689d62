"""A shared run as it is just now: for a process that has a shard of it, and for who looks on.

All functions work inside the caller's transaction; times are Unix seconds and parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from pipeline.checkpoint import runs
from pipeline.checkpoint.runs import LeasedRun
from pipeline.checkpoint.schema import RUNS, SHARDS, load_counts
from pipeline.checkpoint.shard_counts import covered, shards_of, summed
from pipeline.checkpoint.shard_leases import Member
from pipeline.model import Counts
from pipeline.ports import ShardState, Share, Standing


def row_of(connection: sa.Connection, run: str) -> sa.Row[Any]:
    """The row of RUNS."""
    return connection.execute(sa.select(RUNS).where(RUNS.c.id == run)).one()


def enter(connection: sa.Connection, run: str, shard: int, me: Member) -> LeasedRun:
    """A run as the process with this shard goes on with it.

    It is the one to start the source, which is noted, if that was not done and nobody else is
    about to.
    """
    row, rows = row_of(connection, run), shards_of(connection, run)
    place = [each.shard for each in rows].index(shard)
    mine, streams = rows[place], Share(place=place, of=len(rows))
    starts = row.reading is None and not any(
        each.starts and _is_live(each, me.now) for each in rows if each is not mine
    )
    if starts:
        connection.execute(
            sa.update(SHARDS).where(SHARDS.c.run == run).values(starts=SHARDS.c.shard == shard)
        )
    found = replace(runs.load(connection, row, mine.epoch), shard=shard, streams=streams)
    checkpoints = {
        key: settled for key, settled in found.checkpoints.items() if streams.has(key[1])
    }
    settled = [(destination, count) for (destination, _), count in checkpoints.items()]
    return replace(
        found,
        checkpoints=checkpoints,
        counts=covered(load_counts(mine.counts), settled),
        standing=_standing(load_counts(row.counts), rows, shard),
        starts=starts,
    )


def standing(connection: sa.Connection, run: str, shard: int) -> Standing:
    """What the others are at, for the process that has a shard."""
    base = load_counts(connection.execute(runs.counts_of(run)).scalar_one())
    return _standing(base, shards_of(connection, run), shard)


def _standing(base: Mapping[str, Counts], rows: Sequence[sa.Row[Any]], shard: int) -> Standing:
    # This one asks, so it has not ended.
    unfinished = [row.shard for row in rows if not row.done or row.shard == shard]
    # What earlier processes had read is in the counts of the shards by now, or will be.
    earlier = {name: Counts(dead_lettered=kept.dead_lettered) for name, kept in base.items()}
    others = [load_counts(row.counts) for row in rows if row.shard != shard]
    return Standing(
        share=Share(place=unfinished.index(shard), of=len(unfinished)),
        elsewhere=summed([earlier, *others]),
    )


def states(connection: sa.Connection, run: str, now: float) -> tuple[ShardState, ...]:
    """Who has which shard, for who looks on; none of a run that nobody shares."""
    return tuple(
        ShardState(
            index=row.shard,
            holder=row.holder.rpartition(":")[0] if _is_live(row, now) else None,
            done=row.done,
            counts=load_counts(row.counts),
        )
        for row in shards_of(connection, run)
    )


def is_worked_on(rows: Sequence[sa.Row[Any]], now: float, *, beside: int) -> bool:
    """Whether any shard but one is some process's. rows: of SHARDS."""
    return any(_is_live(row, now) for row in rows if row.shard != beside)


def _is_live(row: sa.Row[Any], now: float) -> bool:
    return row.holder is not None and row.expires > now
