"""Leases: one run of a sync at a time, and a fence against those that come back too late.

A lease has a holder, an end and an epoch, which grows whenever the lease is taken. A write of a
run goes through only under the epoch it was opened with. All functions work inside the caller's
transaction; time is a parameter.
"""

from __future__ import annotations

import os

import sqlalchemy as sa

from pipeline.checkpoint import shard_leases
from pipeline.checkpoint.schema import LEASES, upsert
from pipeline.errors import LeaseError

# Holders in this process. A container that restarts has the same host name and process id as
# the one that died; only this tells them apart.
_OURS: set[str] = set()


def register(holder: str) -> None:
    """Note that `holder` lives in this process."""
    _OURS.add(holder)


def unregister(holder: str) -> None:
    """Note that `holder` will not write any more; its leases may be taken at once."""
    _OURS.discard(holder)


def take(connection: sa.Connection, sync: str, *, holder: str, now: float, seconds: float) -> int:
    """Take the lease of a sync for `seconds`; its new epoch. LeaseError while it is live.

    Shards of an unfinished run that went silent are fenced off, too.
    """
    lock(connection, sync)
    refuse_if_live(connection, sync, holder=holder, now=now)
    shard_leases.revoke(connection, sync)
    epoch = connection.execute(
        sa.update(LEASES)
        .where(LEASES.c.sync == sync)
        .values(holder=holder, epoch=LEASES.c.epoch + 1, expires=now + seconds)
        .returning(LEASES.c.epoch)
    )
    return int(epoch.scalar_one())


def lock(connection: sa.Connection, sync: str) -> None:
    """Be the only one who changes what processes of a sync have among them, until the end."""
    connection.execute(
        upsert(connection, LEASES)
        .values(sync=sync, holder=None, epoch=0, expires=0.0)
        .on_conflict_do_nothing()
    )
    connection.execute(sa.select(LEASES.c.epoch).where(LEASES.c.sync == sync).with_for_update())


def refuse_if_live(connection: sa.Connection, sync: str, *, holder: str, now: float) -> None:
    """LeaseError when the lease, or a shard's, is held, has not ended, and may be in use.

    holder: who asks; its host is the one whose process ids can be looked at.
    """
    refuse_if_held(connection, sync, holder=holder, now=now)
    row = shard_leases.live(connection, sync, now)
    if row is not None:
        raise _under_way(sync, row, now)


def refuse_if_held(connection: sa.Connection, sync: str, *, holder: str, now: float) -> None:
    """The same, of the sync's own lease."""
    row = connection.execute(
        sa.select(LEASES.c.holder, LEASES.c.expires).where(LEASES.c.sync == sync).with_for_update()
    ).first()
    if row is not None and _is_live(connection, row, holder, now):
        raise _under_way(sync, row, now)


def _under_way(sync: str, row: sa.Row[str, float], now: float) -> LeaseError:
    return LeaseError(
        f"Sync {sync}: another run is under way ({row.holder.rpartition(':')[0]}). Wait until it "
        f"has ended, or {max(1, round(row.expires - now))} s if it is gone, then run again."
    )


def live_holder(connection: sa.Connection, sync: str, *, holder: str, now: float) -> str | None:
    """Who holds the lease, by `refuse_if_live`'s rule; locks nothing."""
    row = connection.execute(
        sa.select(LEASES.c.holder, LEASES.c.expires).where(LEASES.c.sync == sync)
    ).first()
    if row is None or not _is_live(connection, row, holder, now):
        row = shard_leases.live(connection, sync, now)
    return None if row is None else str(row.holder)


def keep(
    connection: sa.Connection, sync: str, epoch: int, *, holder: str, now: float, seconds: float
) -> None:
    """Renew a lease that is still ours. LeaseError when it was taken or released."""
    kept = connection.execute(
        sa.update(LEASES)
        .where(LEASES.c.sync == sync, LEASES.c.epoch == epoch, LEASES.c.holder == holder)
        .values(expires=now + seconds)
    )
    if kept.rowcount != 1:
        raise LeaseError(
            f"Sync {sync}: this run's lease was lost, another process may have taken over. "
            "Nothing was written; run again to go on from the last Checkpoint."
        )


def release(connection: sa.Connection, sync: str) -> None:
    """Leave the lease to whoever comes next; the epoch stays."""
    connection.execute(
        sa.update(LEASES).where(LEASES.c.sync == sync).values(holder=None, expires=0.0)
    )


def _is_live(
    connection: sa.Connection, row: sa.Row[str | None, float], ours: str, now: float
) -> bool:
    if row.holder is None or row.expires <= now:
        return False
    # A file's users are on one machine. Those of a server may not be, whatever their hosts are
    # called: two pods of one index of a Job have one name, and both are process 1.
    return connection.dialect.name != "sqlite" or not _is_dead(row.holder, ours)


def _is_dead(theirs: str, ours: str) -> bool:
    """Whether the holder `theirs` is known to be gone; only known on one's own host."""
    host, pid, nonce = [*theirs.rsplit(":", 2), "", ""][:3]
    if not nonce or host != ours.rsplit(":", 2)[0] or not pid.isdecimal() or int(pid) == 0:
        return False
    if int(pid) == os.getpid():
        return theirs not in _OURS
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False
