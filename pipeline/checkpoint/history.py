"""The history in the state: one run in full, syncs at a glance, reports, and what is deleted when.

All functions work inside the caller's transaction; times are Unix seconds and parameters. What
is deleted is deleted by a few rows at a time, since every other writer waits meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import sqlalchemy as sa

from pipeline.checkpoint import dead_letters, leases, runs
from pipeline.checkpoint.schema import (
    CHECKPOINTS,
    DEAD_LETTERS,
    LEASES,
    METADATA,
    REPORTS,
    RUNS,
    SYNCS,
    load_reading,
)
from pipeline.model import Result
from pipeline.ports import LetterFilter, Pruned, RunDetail, RunRecord, SyncState

# Of each sync, whatever their age.
LEAST_RUNS = 100
# Deleted in one transaction; measured with SQLite on 2 cores: 40 ms for letters of 2 kB, 140 ms for
# runs of 1,000 streams.
_LETTERS_AT_ONCE = 1_000
_RUNS_AT_ONCE = 50


def detail(connection: sa.Connection, run: str) -> RunDetail | None:
    """All that is kept of one run."""
    row = connection.execute(sa.select(RUNS).where(RUNS.c.id == run)).first()
    if row is None:
        return None
    same_window = sa.select(RUNS).where(
        RUNS.c.sync == row.sync,
        RUNS.c.window_start == row.window_start,
        RUNS.c.window_sequence == row.window_sequence,
    )
    settled = sa.select(CHECKPOINTS.c.destination, sa.func.sum(CHECKPOINTS.c.rows))
    settled = settled.where(CHECKPOINTS.c.run == run).group_by(CHECKPOINTS.c.destination)
    reports = sa.select(REPORTS.c.report).where(REPORTS.c.run == run).order_by(REPORTS.c.id)
    return RunDetail(
        record=runs.record(row),
        attempt=row.attempt,
        unfinished=row.unfinished,
        query_key=row.query_key,
        reading=None if row.reading is None else load_reading(row.reading),
        settled={destination: int(rows) for destination, rows in connection.execute(settled)},
        attempts=tuple(
            runs.record(one) for one in connection.execute(same_window.order_by(RUNS.c.number))
        ),
        dead_letters={
            (count.destination, count.reason): count.letters
            for count in dead_letters.summary(connection, LetterFilter(run=run))
        },
        reports=tuple(json.loads(text) for text in connection.scalars(reports)),
    )


def last_full_run(connection: sa.Connection, sync: str) -> RunRecord | None:
    """The newest complete run whose window started at 0."""
    query = sa.select(RUNS).where(
        RUNS.c.sync == sync, RUNS.c.window_start == 0, RUNS.c.result == Result.COMPLETE.value
    )
    row = connection.execute(query.order_by(RUNS.c.number.desc()).limit(1)).first()
    return None if row is None else runs.record(row)


def syncs(connection: sa.Connection, *, holder: str, now: float) -> list[SyncState]:
    """Every sync of the state, by name. holder: who asks."""
    names = sa.union(sa.select(SYNCS.c.name), sa.select(LEASES.c.sync)).order_by("name")
    found = []
    for name in connection.scalars(names):
        last = runs.unfinished(connection, name)
        live = leases.live_holder(connection, name, holder=holder, now=now)
        found.append(
            SyncState(
                name=name,
                window=runs.next_window(connection, name, last),
                unfinished=None if last is None else last.id,
                holder=None if live is None else live.rpartition(":")[0],
            )
        )
    return found


def keep_report(connection: sa.Connection, run: str, report: Mapping[str, object]) -> None:
    """Add what a process reports of a run."""
    connection.execute(sa.insert(REPORTS).values(run=run, report=json.dumps(report)))


# ------------------------------------------------------------------------------- retention


def prune(connection: sa.Connection, *, runs_before: float, letters_before: float) -> Pruned:
    """Delete some dead letters kept, and if there are none some runs ended, before these times."""
    letters = _prune_letters(connection, letters_before)
    if letters:
        return Pruned(dead_letters=letters)
    for sync in connection.scalars(sa.select(SYNCS.c.name).order_by(SYNCS.c.name)).all():
        deleted = _prune_runs(connection, sync, runs_before)
        if deleted:
            return Pruned(runs=deleted)
    return Pruned()


def _prune_letters(connection: sa.Connection, before: float) -> int:
    # The oldest have the lowest ids: looking further would read every letter, every time.
    oldest = sa.select(DEAD_LETTERS.c.id, DEAD_LETTERS.c.at).order_by(DEAD_LETTERS.c.id)
    found = connection.execute(oldest.limit(_LETTERS_AT_ONCE).with_for_update(skip_locked=True))
    old = [number for number, at in found if at < before]
    if old:
        connection.execute(sa.delete(DEAD_LETTERS).where(DEAD_LETTERS.c.id.in_(old)))
    return len(old)


def _prune_runs(connection: sa.Connection, sync: str, before: float) -> int:
    mine = sa.select(RUNS.c.number).where(RUNS.c.sync == sync).order_by(RUNS.c.number.desc())
    newest_to_go = connection.scalar(mine.offset(LEAST_RUNS).limit(1))
    if newest_to_go is None:
        return 0
    last_complete = connection.scalar(mine.where(RUNS.c.result == Result.COMPLETE.value).limit(1))
    kept = sa.select(DEAD_LETTERS.c.id).where(DEAD_LETTERS.c.run == RUNS.c.id)
    query = (
        sa.select(RUNS.c.id)
        .where(
            RUNS.c.sync == sync,
            RUNS.c.number <= newest_to_go,
            RUNS.c.number != (last_complete or 0),
            RUNS.c.finished < before,
            sa.not_(RUNS.c.unfinished),
            sa.not_(kept.exists()),
        )
        .order_by(RUNS.c.number)
        .limit(_RUNS_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    old = connection.scalars(query).all()
    if old:
        for column in _columns_of_runs():
            connection.execute(sa.delete(column.table).where(column.in_(old)))
        connection.execute(sa.delete(RUNS).where(RUNS.c.id.in_(old)))
    return len(old)


def _columns_of_runs() -> list[sa.Column[str]]:
    """The columns that name a run, in the tables whose rows go with it."""
    return [
        key.parent
        for table in METADATA.sorted_tables
        for key in table.foreign_keys
        if key.column is RUNS.c.id and table is not DEAD_LETTERS
    ]
