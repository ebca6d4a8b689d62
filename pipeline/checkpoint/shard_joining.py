"""How a process comes to a shard: the first of a Job opens the run, the others join it.

A Job shares one run of a sync, and all attempts on it, and no other: some of its processes may have
ended when another comes back, so a second run of the Job would never be complete. Everything
here happens under the lock of the sync's lease, in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from pipeline.checkpoint import dead_letters, leases, runs, shard_leases, shard_views, shards
from pipeline.checkpoint.runs import LeasedRun
from pipeline.checkpoint.schema import JOBS, RUNS, SHARDS, dump_counts
from pipeline.checkpoint.shard_leases import Member
from pipeline.errors import UnusableState
from pipeline.model import Result
from pipeline.ports import Shard


def join(
    connection: sa.Connection,
    sync: str,
    fingerprint: str,
    shard: Shard,
    me: Member,
    *,
    full: bool,
    token: Callable[[], str],
) -> LeasedRun:
    """Take a shard of the Job's run; or it is over already, or the whole run is.

    Raises ShardHeld while another process has the shard, LeaseError while others run the sync,
    UnusableState when the run is not this Job's any more.
    """
    leases.lock(connection, sync)
    row = _of_job(connection, sync, shard.job)
    if row is None:
        run = _open(connection, sync, fingerprint, shard, me, full=full, token=token)
    elif row.result == Result.COMPLETE.value:
        return _over(connection, row)
    else:
        _refuse_if_lost(row, shard, fingerprint)
        leases.refuse_if_held(connection, sync, holder=me.holder, now=me.now)
        run = row.id
    mine = connection.execute(
        sa.select(SHARDS.c.done).where(SHARDS.c.run == run, SHARDS.c.shard == shard.index)
    ).first()
    # Without one it had ended before the run began anew, and others have its streams.
    if mine is None or mine.done:
        return _over(connection, shard_views.row_of(connection, run))
    shard_leases.take(connection, run, shard.index, me)
    runs.begin_again(connection, run)
    found = shard_views.enter(connection, run, shard.index, me)
    dead_letters.drop_uncovered(connection, run, found.streams)
    return found


def _of_job(connection: sa.Connection, sync: str, job: str) -> sa.Row[Any] | None:
    """The row of RUNS of the Job's last attempt, whoever goes on with it by now."""
    query = sa.select(RUNS).join(JOBS, JOBS.c.run == RUNS.c.id)
    return connection.execute(query.where(JOBS.c.sync == sync, JOBS.c.job == job)).first()


def _refuse_if_lost(row: sa.Row[Any], shard: Shard, fingerprint: str) -> None:
    if not row.unfinished:
        why = f"was {row.error}" if row.error else "has ended"
    elif row.job != shard.job:
        why = "is gone on with by another process"
    elif row.shards != shard.of:
        why = f"is shared by {row.shards} shards, and RETL_SHARDS says {shard.of} here"
    elif row.fingerprint != fingerprint:
        why = "was begun before what the sync does was changed"
    else:
        return
    raise UnusableState(
        f"Sync {row.sync}: run {row.id} of Job {shard.job} {why.rstrip('.')}. Start a new Job: "
        "shards of this one may have ended. What was settled stays settled."
    )


def _open(
    connection: sa.Connection,
    sync: str,
    fingerprint: str,
    shard: Shard,
    me: Member,
    *,
    full: bool,
    token: Callable[[], str],
) -> str:
    """The id of the run that the Job shares from now on: what was left unfinished, or a new one."""
    # Taken and given back: whoever had the sync and went silent is fenced off for good.
    epoch = leases.take(connection, sync, holder=me.holder, now=me.now, seconds=0)
    leases.release(connection, sync)
    window, last = shards.what_is_left(connection, sync, fingerprint, full=full, now=me.now)
    if last is None:
        run = runs.new(
            connection, sync, window, fingerprint, epoch=epoch, now=me.now, token=token
        ).id
    else:
        run = last.id
        dead_letters.drop_uncovered(connection, run)
    connection.execute(
        sa.update(RUNS).where(RUNS.c.id == run).values(job=shard.job, shards=shard.of)
    )
    connection.execute(sa.insert(JOBS).values(sync=sync, job=shard.job, run=run))
    # Shards of an earlier Job may have had higher epochs; their holders are none of this one's.
    nobodys = {"holder": None, "epoch": epoch, "expires": 0.0, "starts": False, "done": False}
    connection.execute(
        sa.insert(SHARDS),
        [
            nobodys | {"run": run, "shard": index, "counts": dump_counts({})}
            for index in range(shard.of)
        ],
    )
    return run


def _over(connection: sa.Connection, row: sa.Row[Any]) -> LeasedRun:
    found = runs.load(connection, row, epoch=0)
    return replace(found, checkpoints={}, counts={}, starts=False, over=True)
