"""Leases of the shards of a run that several processes share: one process on each, and a fence.

Kubernetes may have two pods on one index for a while. Like the lease of a sync, each shard's has a
holder, an end and an epoch. Who takes the sync's lease revokes those of its shards, so one of
both kinds is in use. All functions work inside the caller's transaction; time is a parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from pipeline.checkpoint.schema import RUNS, SHARDS
from pipeline.errors import LeaseError, RunMoved, ShardHeld


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A process with a shard, at a moment. seconds: how long a lease of a shard lasts."""

    holder: str
    now: float
    seconds: float


def _of_sync(sync: str) -> sa.Select[str]:
    return sa.select(RUNS.c.id).where(RUNS.c.sync == sync, RUNS.c.unfinished)


def live(connection: sa.Connection, sync: str, now: float) -> sa.Row[str, float] | None:
    """Holder and end of the shard's lease of a sync that lasts longest; None when none is live."""
    query = sa.select(SHARDS.c.holder, SHARDS.c.expires).where(
        SHARDS.c.run.in_(_of_sync(sync)), SHARDS.c.holder.is_not(None), SHARDS.c.expires > now
    )
    return connection.execute(query.order_by(SHARDS.c.expires.desc()).limit(1)).first()


def revoke(connection: sa.Connection, sync: str) -> None:
    """Fence off whoever has a shard of a sync."""
    connection.execute(
        sa.update(SHARDS)
        .where(SHARDS.c.run.in_(_of_sync(sync)))
        .values(holder=None, epoch=SHARDS.c.epoch + 1, expires=0.0)
    )


def take(connection: sa.Connection, run: str, shard: int, me: Member) -> int:
    """Take the lease of a shard; its new epoch. ShardHeld while another has it."""
    mine = (SHARDS.c.run == run, SHARDS.c.shard == shard)
    epoch = connection.scalar(
        sa.update(SHARDS)
        .where(*mine, sa.or_(SHARDS.c.holder.is_(None), SHARDS.c.expires <= me.now))
        .values(holder=me.holder, epoch=SHARDS.c.epoch + 1, expires=me.now + me.seconds)
        .returning(SHARDS.c.epoch)
    )
    if epoch is None:
        theirs, expires = connection.execute(
            sa.select(SHARDS.c.holder, SHARDS.c.expires).where(*mine)
        ).one()
        raise ShardHeld(
            f"Shard {shard} of run {run} is another process's ({str(theirs).rpartition(':')[0]}), "
            f"for {max(1, round(expires - me.now))} s more if that is gone. Run again when it has "
            "ended."
        )
    return int(epoch)


def keep(connection: sa.Connection, run: str, shard: int, epoch: int, me: Member) -> None:
    """Renew a lease that is still ours. RunMoved when it is of another attempt now.

    LeaseError when it was taken or released.
    """
    ours = (SHARDS.c.shard == shard, SHARDS.c.epoch == epoch, SHARDS.c.holder == me.holder)
    kept = connection.execute(
        sa.update(SHARDS).where(SHARDS.c.run == run, *ours).values(expires=me.now + me.seconds)
    )
    if kept.rowcount == 1:
        return
    if connection.scalar(sa.select(SHARDS.c.run).where(*ours)) is not None:
        raise RunMoved(f"Run {run} is gone on with as another attempt. Nothing was written.")
    raise lost(run, shard)


def lock(connection: sa.Connection, run: str) -> None:
    """Let none of its shards write, until the end; what they are writing comes first."""
    connection.execute(sa.select(SHARDS.c.shard).where(SHARDS.c.run == run).with_for_update()).all()


def lost(run: str, shard: int) -> LeaseError:
    """What to tell a process whose lease is another's now."""
    return LeaseError(
        f"Shard {shard} of run {run}: its lease was lost, another process may have taken over. "
        "Nothing was written; run again to go on from the last Checkpoint."
    )


def release(connection: sa.Connection, run: str, shard: int) -> None:
    """Leave a shard to whoever comes next; the epoch stays."""
    connection.execute(
        sa.update(SHARDS)
        .where(SHARDS.c.run == run, SHARDS.c.shard == shard)
        .values(holder=None, expires=0.0)
    )
