"""Runs that several processes share: what each of them does to all, and how a run is let go.

Each process has a shard, and each shard the streams at its place among the shards. A commit touches
its own shard only; what concerns all of them (to start, to begin anew, to end) is done under the
lock of the sync's lease. A shard that ends hands nothing over: the last one closes the run. All
functions work inside the caller's transaction; times are Unix seconds and parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from pipeline.checkpoint import runs, shard_leases, shard_views
from pipeline.checkpoint.runs import LeasedRun
from pipeline.checkpoint.schema import JOBS, RUNS, SHARDS, dump_counts, load_counts, load_reading
from pipeline.checkpoint.shard_counts import finished_earlier, settled_rows, shards_of, totals
from pipeline.checkpoint.shard_leases import Member
from pipeline.errors import PipelineError, RunMoved
from pipeline.model import Counts, Reading, Result, Window

_NONE = dump_counts({})

# ------------------------------------------------------------------------------- while it runs


def follow(connection: sa.Connection, run: LeasedRun, me: Member) -> LeasedRun:
    """The run that the process with this lease has its shard in now. LeaseError when it has none.

    The caller has locked the sync.
    """
    shard = _shard(run)
    ours = (SHARDS.c.shard == shard, SHARDS.c.epoch == run.epoch, SHARDS.c.holder == me.holder)
    now = connection.scalar(
        sa.select(SHARDS.c.run).join(RUNS).where(RUNS.c.sync == run.sync, RUNS.c.unfinished, *ours)
    )
    if now is None:
        raise shard_leases.lost(run.id, shard)
    shard_leases.keep(connection, now, shard, run.epoch, me)
    return shard_views.enter(connection, now, shard, me)


def attach(connection: sa.Connection, run: LeasedRun, reading: Reading) -> None:
    """Keep what this process started. RunMoved when another starts it, or has."""
    starts = connection.scalar(sa.select(SHARDS.c.starts).where(*_mine(run)))
    if not starts or shard_views.row_of(connection, run.id).reading is not None:
        raise RunMoved(f"Run {run.id} was started by another process. Nothing was written.")
    runs.set_reading(connection, run.id, reading)


def set_counts(connection: sa.Connection, run: LeasedRun, counts: Mapping[str, Counts]) -> None:
    """Keep the totals of a shard, of the destinations given; the others stay."""
    if not counts:
        return
    kept = connection.execute(sa.select(SHARDS.c.counts).where(*_mine(run))).scalar_one()
    merged = dump_counts({**load_counts(kept), **counts})
    connection.execute(sa.update(SHARDS).where(*_mine(run)).values(counts=merged))


def restart(
    connection: sa.Connection,
    run: LeasedRun,
    reason: str,
    me: Member,
    *,
    same_query: bool,
    token: Callable[[], str],
) -> LeasedRun:
    """The next attempt, with the shards that are unfinished: a Job starts no others again.

    A destination that has all rows of the result is done, when it is known how many there are.
    """
    # A commit of another shard that is under way belongs to this attempt, and is waited for.
    shard_leases.lock(connection, run.id)
    row = shard_views.row_of(connection, run.id)
    done = _complete(connection, row)
    _fold(connection, row)
    runs.fail(connection, run.id, me.now, reason)
    following = runs.new(
        connection,
        run.sync,
        run.window,
        run.fingerprint,
        epoch=run.epoch,
        now=me.now,
        token=token,
    )
    connection.execute(
        sa.update(RUNS).where(RUNS.c.id == following.id).values(job=row.job, shards=row.shards)
    )
    lead_on(connection, run.id, following.id)
    connection.execute(
        sa.update(SHARDS)
        .where(SHARDS.c.run == run.id, sa.not_(SHARDS.c.done))
        .values(run=following.id, starts=False, counts=_NONE)
    )
    connection.execute(sa.delete(SHARDS).where(SHARDS.c.run == run.id))
    if same_query:
        runs.carry(connection, run, following, done)
    return shard_views.enter(connection, following.id, _shard(run), me)


# ------------------------------------------------------------------------------- its end


def finish(
    connection: sa.Connection,
    run: LeasedRun,
    result: Result,
    counts: Mapping[str, Counts],
    me: Member,
    *,
    error: str,
) -> LeasedRun | None:
    """End a shard; and the run with the last of them, if every row is settled.

    None when the run is closed. If rows are missing, all streams are this process's, and what it
    gets is the run to go on with. Else the run is over for this process.
    """
    complete = result is Result.COMPLETE
    set_counts(connection, run, counts)
    if complete:
        connection.execute(sa.update(SHARDS).where(*_mine(run)).values(done=True))
    row, rows = shard_views.row_of(connection, run.id), shards_of(connection, run.id)
    if all(each.done for each in rows):
        if _is_short(connection, row, counts):
            return _alone(connection, row, _shard(run), me)
        _fold(connection, row)
        connection.execute(sa.delete(SHARDS).where(SHARDS.c.run == run.id))
        runs.advance_window(connection, run)
        runs.end(connection, run.id, me.now, result, error)
        return None
    shard_leases.release(connection, run.id, _shard(run))
    error = error or row.error  # an earlier one's, while that shard is not begun again
    if shard_views.is_worked_on(rows, me.now, beside=_shard(run)):
        connection.execute(sa.update(RUNS).where(RUNS.c.id == run.id).values(error=error))
    else:
        left = Result.FAILED if error else Result.INTERRUPTED
        runs.end(connection, run.id, me.now, left if complete else result, error)
    return replace(run, over=True)


def _is_short(connection: sa.Connection, row: sa.Row[Any], names: Collection[str]) -> bool:
    """Whether a destination has settled another number of rows than the source has.

    A process that has some of the streams can't tell whether one of them ended too early.
    """
    rows, settled = _exact_rows(row), settled_rows(connection, row.id)
    return rows is not None and any(settled.get(name, 0) != rows for name in names)


def _complete(connection: sa.Connection, row: sa.Row[Any]) -> list[str]:
    """The destinations that have settled all rows there are."""
    rows = _exact_rows(row)
    settled = settled_rows(connection, row.id)
    return [name for name, count in settled.items() if count == rows]


def _exact_rows(row: sa.Row[Any]) -> int | None:
    """How many rows the source has, if it can tell exactly."""
    reading = None if row.reading is None else load_reading(row.reading)
    return reading.rows if reading is not None and reading.rows_exact else None


def _alone(connection: sa.Connection, row: sa.Row[Any], shard: int, me: Member) -> LeasedRun:
    """Let the last shard have all streams, and all that was counted."""
    counted, finished = totals(connection, row), finished_earlier(row)
    kept = {name: each for name, each in counted.items() if name in finished}
    mine = {name: each for name, each in counted.items() if name not in finished}
    connection.execute(sa.update(RUNS).where(RUNS.c.id == row.id).values(counts=dump_counts(kept)))
    connection.execute(sa.delete(SHARDS).where(SHARDS.c.run == row.id, SHARDS.c.shard != shard))
    connection.execute(
        sa.update(SHARDS)
        .where(SHARDS.c.run == row.id)
        .values(done=False, starts=False, counts=dump_counts(mine))
    )
    return shard_views.enter(connection, row.id, shard, me)


# ------------------------------------------------------------------------------- let go


def what_is_left(
    connection: sa.Connection, sync: str, fingerprint: str, *, full: bool, now: float
) -> tuple[Window, sa.Row[Any] | None]:
    """The window of a sync's next run, and the row of RUNS that it goes on with, if there is one.

    That one is nobody's any more; one that can't be gone on with is given up. The caller has
    taken the sync's lease.
    """
    last = runs.unfinished(connection, sync)
    window = runs.next_window(connection, sync, last)
    if full:
        window = replace(window, start=0)
    if last is None:
        return window, None
    if last.fingerprint != fingerprint:
        give_up(connection, last, now, "given up: what the sync does was changed")
        return window, None
    if last.window_start != window.start:
        give_up(connection, last, now, "given up: a full run was asked for")
        return window, None
    if last.job is not None:
        _dissolve(connection, last)
    return window, shard_views.row_of(connection, last.id)


def give_up(connection: sa.Connection, row: sa.Row[Any], now: float, why: str) -> None:
    """End a run for good, whoever shared it. row: of RUNS."""
    _fold(connection, row)
    connection.execute(sa.delete(SHARDS).where(SHARDS.c.run == row.id))
    runs.fail(connection, row.id, now, why)


def lead_on(connection: sa.Connection, run: str, following: str) -> None:
    """Let Jobs that shared a run find the attempt that follows it, whoever makes it."""
    connection.execute(sa.update(JOBS).where(JOBS.c.run == run).values(run=following))


def _dissolve(connection: sa.Connection, row: sa.Row[Any]) -> None:
    """Let a run whose processes are gone be another's: a Job's, or a process's alone."""
    _fold(connection, row)
    connection.execute(sa.delete(SHARDS).where(SHARDS.c.run == row.id))
    connection.execute(sa.update(RUNS).where(RUNS.c.id == row.id).values(job=None, shards=1))


def _fold(connection: sa.Connection, row: sa.Row[Any]) -> None:
    """Keep with the run what its shards come to; they are deleted, or begin from nothing, next."""
    counts = dump_counts(totals(connection, row))
    connection.execute(sa.update(RUNS).where(RUNS.c.id == row.id).values(counts=counts))


def _mine(run: LeasedRun) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return SHARDS.c.run == run.id, SHARDS.c.shard == _shard(run)


def _shard(run: LeasedRun) -> int:
    if run.shard is None:
        raise PipelineError(f"Run {run.id} is not shared. This is our own fault.")
    return run.shard
