"""Rows of runs and windows in the state: opened, gone on with, ended.

All functions work inside the caller's transaction, which has made sure of the lease; times are
Unix seconds and parameters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from pipeline.checkpoint import dead_letters
from pipeline.checkpoint.schema import (
    CHECKPOINTS,
    RUNS,
    SYNCS,
    dump_counts,
    dump_reading,
    load_counts,
    load_reading,
    upsert,
)
from pipeline.errors import LeaseError, PipelineError
from pipeline.model import Counts, Reading, Result, Window
from pipeline.ports import OpenRun


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedRun(OpenRun):
    """An OpenRun with the epoch of the lease it was opened under.

    shard: whose lease that is; None: that of the sync.
    """

    epoch: int
    shard: int | None = None


def leased(run: OpenRun) -> LeasedRun:
    """The run, with the lease it was opened under."""
    if not isinstance(run, LeasedRun):
        raise PipelineError(
            f"Sync {run.sync}: run {run.id} was not opened by a store. This is our own fault."
        )
    return run


# ------------------------------------------------------------------------------- windows


def next_window(connection: sa.Connection, sync: str, last: sa.Row[Any] | None) -> Window:
    """The window of the unfinished run `last`, or the one after the last complete run."""
    if last is not None:
        return Window(start=last.window_start, sequence=last.window_sequence)
    row = connection.execute(sa.select(SYNCS).where(SYNCS.c.name == sync)).first()
    if row is None:
        return Window(start=0, sequence=1)
    return Window(start=row.last_sync_time, sequence=row.sequence + 1)


def set_last_sync_time(connection: sa.Connection, sync: str, start: int) -> None:
    """Let the next window start there; how many runs completed stays."""
    insert = upsert(connection, SYNCS).values(name=sync, last_sync_time=start, sequence=0)
    connection.execute(
        insert.on_conflict_do_update(index_elements=["name"], set_={"last_sync_time": start})
    )


def advance_window(connection: sa.Connection, run: OpenRun) -> None:
    """Let the next window start when the query of this run, which is complete, started."""
    kept = connection.scalar(sa.select(RUNS.c.reading).where(RUNS.c.id == run.id))
    if kept is None:
        raise PipelineError(
            f"Sync {run.sync}: run {run.id} read nothing, so it can't be complete. "
            "This is our own fault: please report it."
        )
    connection.execute(
        sa.update(SYNCS)
        .where(SYNCS.c.name == run.sync)
        .values(last_sync_time=load_reading(kept).query_started, sequence=run.window.sequence)
    )


# ------------------------------------------------------------------------------- one run


def unfinished(connection: sa.Connection, sync: str) -> sa.Row[Any] | None:
    """The one run of a sync that may be gone on with."""
    return connection.execute(sa.select(RUNS).where(RUNS.c.sync == sync, RUNS.c.unfinished)).first()


def refuse_if_ended(connection: sa.Connection, run: OpenRun) -> None:
    """LeaseError when the run has ended: its lease may live on in the run that followed."""
    if not connection.scalar(sa.select(RUNS.c.unfinished).where(RUNS.c.id == run.id)):
        raise LeaseError(f"Sync {run.sync}: run {run.id} has ended. Nothing was written.")


def new(
    connection: sa.Connection,
    sync: str,
    window: Window,
    fingerprint: str,
    *,
    epoch: int,
    now: float,
    token: Callable[[], str],
) -> LeasedRun:
    """Open the next attempt on a window."""
    connection.execute(
        upsert(connection, SYNCS)
        .values(name=sync, last_sync_time=0, sequence=0)
        .on_conflict_do_nothing()
    )
    attempts = connection.scalar(
        sa.select(sa.func.max(RUNS.c.attempt)).where(
            RUNS.c.sync == sync,
            RUNS.c.window_start == window.start,
            RUNS.c.window_sequence == window.sequence,
        )
    )
    run = LeasedRun(
        id=_new_id(connection, sync, now, token),
        sync=sync,
        window=window,
        fingerprint=fingerprint,
        attempt=1 + (attempts or 0),
        reading=None,
        checkpoints={},
        counts={},
        resumed=False,
        epoch=epoch,
    )
    connection.execute(
        sa.insert(RUNS).values(
            id=run.id,
            sync=sync,
            window_start=window.start,
            window_sequence=window.sequence,
            fingerprint=fingerprint,
            attempt=run.attempt,
            unfinished=True,
            started=now,
            error="",
            counts=dump_counts({}),
        )
    )
    return run


def _new_id(connection: sa.Connection, sync: str, now: float, token: Callable[[], str]) -> str:
    """Readable, and sorts by time: 20261124T153000Z-users-1f3a."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    while True:
        run = f"{stamp}-{sync}-{token()}"
        if connection.scalar(sa.select(RUNS.c.id).where(RUNS.c.id == run)) is None:
            return run


def reopen(connection: sa.Connection, last: sa.Row[Any], epoch: int) -> LeasedRun:
    """Go on with an unfinished run: all that was kept of it, but for what will be done again."""
    dead_letters.drop_uncovered(connection, last.id)
    begin_again(connection, last.id)
    return load(connection, last, epoch)


def begin_again(connection: sa.Connection, run: str) -> None:
    """Forget how a run ended: it goes on."""
    connection.execute(
        sa.update(RUNS).where(RUNS.c.id == run).values(finished=None, result=None, error="")
    )


def load(connection: sa.Connection, last: sa.Row[Any], epoch: int) -> LeasedRun:
    """A row of RUNS as it is, with its Checkpoints, under a lease of this epoch."""
    checkpoints = connection.execute(
        sa.select(CHECKPOINTS.c.destination, CHECKPOINTS.c.stream, CHECKPOINTS.c.rows).where(
            CHECKPOINTS.c.run == last.id
        )
    )
    return LeasedRun(
        id=last.id,
        sync=last.sync,
        window=Window(start=last.window_start, sequence=last.window_sequence),
        fingerprint=last.fingerprint,
        attempt=last.attempt,
        reading=None if last.reading is None else load_reading(last.reading),
        checkpoints={(destination, stream): rows for destination, stream, rows in checkpoints},
        counts=load_counts(last.counts),
        resumed=True,
        query_key=last.query_key,
        done=frozenset(json.loads(last.done or "[]")),
        epoch=epoch,
    )


def carry(
    connection: sa.Connection, before: OpenRun, run: LeasedRun, done: Collection[str]
) -> LeasedRun:
    """Let `run` read the result of `before`'s query, but for the destinations that have it all."""
    kept = load_counts(connection.execute(counts_of(before.id)).scalar_one())
    finished = before.done | {*done}
    run = replace(
        run,
        query_key=before.job_key,
        done=finished,
        counts={name: counts for name, counts in kept.items() if name in finished},
    )
    connection.execute(
        sa.update(RUNS)
        .where(RUNS.c.id == run.id)
        .values(
            query_key=run.query_key,
            done=json.dumps(sorted(finished)),
            counts=dump_counts(run.counts),
        )
    )
    return run


def set_reading(connection: sa.Connection, run: str, reading: Reading) -> None:
    """Keep what a run reads."""
    connection.execute(
        sa.update(RUNS).where(RUNS.c.id == run).values(reading=dump_reading(reading))
    )


def set_checkpoints(
    connection: sa.Connection, run: str, checkpoints: Mapping[tuple[str, int], int]
) -> None:
    """Keep the Checkpoints given; the others stay."""
    if not checkpoints:
        return
    insert = upsert(connection, CHECKPOINTS)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["run", "destination", "stream"],
            set_={"rows": insert.excluded["rows"]},
        ),
        [
            {"run": run, "destination": destination, "stream": stream, "rows": rows}
            for (destination, stream), rows in checkpoints.items()
        ],
    )


def set_counts(connection: sa.Connection, run: str, counts: Mapping[str, Counts]) -> None:
    """Keep the totals of the destinations given; the others stay."""
    if not counts:
        return
    kept = load_counts(connection.execute(counts_of(run)).scalar_one())
    connection.execute(
        sa.update(RUNS).where(RUNS.c.id == run).values(counts=dump_counts({**kept, **counts}))
    )


def counts_of(run: str) -> sa.Select[str]:
    """What is kept with a run of its counts, as text."""
    return sa.select(RUNS.c.counts).where(RUNS.c.id == run)


def end(connection: sa.Connection, run: str, now: float, result: Result, error: str) -> None:
    """Note how a run ended; unless it is complete, it may be gone on with."""
    connection.execute(
        sa.update(RUNS)
        .where(RUNS.c.id == run)
        .values(
            finished=now,
            result=result.value,
            error=error,
            unfinished=result is not Result.COMPLETE,
        )
    )


def fail(connection: sa.Connection, run: str, now: float, why: str) -> None:
    """End a run for good; it will not be gone on with."""
    connection.execute(
        sa.update(RUNS)
        .where(RUNS.c.id == run)
        .values(finished=now, result=Result.FAILED.value, error=why, unfinished=False)
    )
