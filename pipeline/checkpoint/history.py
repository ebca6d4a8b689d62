"""The history in the state: runs in a line or in full, syncs, reports, and what is deleted when.

All functions work inside the caller's transaction; times are Unix seconds and parameters. What
is deleted is deleted by a few rows at a time, since every other writer waits meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from pipeline.checkpoint import dead_letters, leases, runs, shard_views
from pipeline.checkpoint.schema import (
    DEAD_LETTERS,
    LEASES,
    METADATA,
    REPORTS,
    RUNS,
    SYNCS,
    load_reading,
)
from pipeline.checkpoint.shard_counts import settled_rows, totals
from pipeline.model import Result, Window
from pipeline.ports import LetterFilter, Pruned, RunDetail, RunRecord, SyncState

# Of each sync, whatever their age.
LEAST_RUNS = 100
# Deleted in one transaction; measured with SQLite on 2 cores: 40 ms for letters of 2 kB, 140 ms for
# runs of 1,000 streams.
_LETTERS_AT_ONCE = 1_000
_RUNS_AT_ONCE = 50


def newest(connection: sa.Connection, sync: str | None, limit: int) -> list[RunRecord]:
    """At most `limit` runs of one sync or all, newest first."""
    query = sa.select(RUNS).order_by(RUNS.c.number.desc()).limit(limit)
    if sync is not None:
        query = query.where(RUNS.c.sync == sync)
    return [_record(connection, row) for row in connection.execute(query).all()]


def _record(connection: sa.Connection, row: sa.Row[Any]) -> RunRecord:
    """A row of RUNS for whoever looks at it; its counts are those of all its processes."""
    reading = None if row.reading is None else load_reading(row.reading)
    return RunRecord(
        id=row.id,
        sync=row.sync,
        window=Window(start=row.window_start, sequence=row.window_sequence),
        started=row.started,
        finished=row.finished,
        result=None if row.result is None else Result(row.result),
        error=row.error,
        query_started=None if reading is None else reading.query_started,
        rows=None if reading is None else reading.rows,
        bytes_billed=0 if reading is None else reading.bytes_billed,
        counts=totals(connection, row),
        restarts=_restarts(connection, row.id),
        job=row.job,
        shards=row.shards,
    )


def _restarts(connection: sa.Connection, run: str) -> int:
    """As its processes reported them; a report of another version may say nothing of them."""
    reports = connection.scalars(sa.select(REPORTS.c.report).where(REPORTS.c.run == run))
    return sum(sum((json.loads(text).get("restarts") or {}).values()) for text in reports)


def detail(connection: sa.Connection, run: str, now: float) -> RunDetail | None:
    """All that is kept of one run."""
    row = connection.execute(sa.select(RUNS).where(RUNS.c.id == run)).first()
    if row is None:
        return None
    same_window = sa.select(RUNS).where(
        RUNS.c.sync == row.sync,
        RUNS.c.window_start == row.window_start,
        RUNS.c.window_sequence == row.window_sequence,
    )
    reports = sa.select(REPORTS.c.report).where(REPORTS.c.run == run).order_by(REPORTS.c.id)
    return RunDetail(
        record=_record(connection, row),
        attempt=row.attempt,
        unfinished=row.unfinished,
        query_key=row.query_key,
        reading=None if row.reading is None else load_reading(row.reading),
        settled=settled_rows(connection, run),
        attempts=tuple(
            _record(connection, one)
            for one in connection.execute(same_window.order_by(RUNS.c.number)).all()
        ),
        dead_letters={
            (count.destination, count.reason): count.letters
            for count in dead_letters.summary(connection, LetterFilter(run=run))
        },
        reports=tuple(json.loads(text) for text in connection.scalars(reports)),
        shards=shard_views.states(connection, run, now),
    )


def last_full_run(connection: sa.Connection, sync: str) -> RunRecord | None:
    """The newest complete run whose window started at 0."""
    query = sa.select(RUNS).where(
        RUNS.c.sync == sync, RUNS.c.window_start == 0, RUNS.c.result == Result.COMPLETE.value
    )
    row = connection.execute(query.order_by(RUNS.c.number.desc()).limit(1)).first()
    return None if row is None else _record(connection, row)


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
                shards=() if last is None else shard_views.states(connection, last.id, now),
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
