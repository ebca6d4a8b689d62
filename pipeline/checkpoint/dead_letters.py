"""Dead letters in the state: kept once each, listed, counted.

All functions work inside the caller's transaction. Payloads are row content: they are stored
and handed out, never put into a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from pipeline.checkpoint.schema import CHECKPOINTS, DEAD_LETTERS, RUNS, upsert
from pipeline.model import DeadLetter
from pipeline.ports import DeadLetterRecord


class ReasonCount(NamedTuple):
    """How many dead letters have one reason."""

    sync: str
    destination: str
    reason: str
    letters: int


def add(
    connection: sa.Connection,
    run: str,
    destination: str,
    letters: Sequence[DeadLetter],
    at: float,
) -> None:
    """Keep those that are not kept yet, by (run, destination, stream, row)."""
    connection.execute(
        upsert(connection, DEAD_LETTERS).on_conflict_do_nothing(
            index_elements=["run", "destination", "stream", "row"]
        ),
        [
            {
                "run": run,
                "destination": destination,
                "stream": letter.stream,
                "row": letter.row,
                "at": at,
                "reason": letter.reason,
                "message": letter.message,
                "payload": letter.payload,
            }
            for letter in letters
        ],
    )


def drop_uncovered(connection: sa.Connection, run: str) -> None:
    """Forget those of a run that its Checkpoints don't cover: their rows will be read again.

    Then they may be delivered; if not, they are kept anew.
    """
    settled = sa.select(CHECKPOINTS.c.rows).where(
        CHECKPOINTS.c.run == DEAD_LETTERS.c.run,
        CHECKPOINTS.c.destination == DEAD_LETTERS.c.destination,
        CHECKPOINTS.c.stream == DEAD_LETTERS.c.stream,
    )
    connection.execute(
        sa.delete(DEAD_LETTERS).where(
            DEAD_LETTERS.c.run == run,
            DEAD_LETTERS.c.row >= sa.func.coalesce(settled.scalar_subquery(), 0),
        )
    )


def newest(
    connection: sa.Connection, *, sync: str | None, run: str | None, limit: int
) -> list[DeadLetterRecord]:
    """At most `limit`, newest first, of one sync or run or of all."""
    # Found by id alone, so that sorting many does not carry their payloads along.
    found = _of(sa.select(DEAD_LETTERS.c.id), sync=sync, run=run)
    ids = found.order_by(DEAD_LETTERS.c.id.desc()).limit(limit)
    query = _records().where(DEAD_LETTERS.c.id.in_(ids)).order_by(DEAD_LETTERS.c.id.desc())
    return [_record(row) for row in connection.execute(query)]


def one(connection: sa.Connection, number: int) -> DeadLetterRecord | None:
    """The dead letter with this id."""
    row = connection.execute(_records().where(DEAD_LETTERS.c.id == number)).first()
    return None if row is None else _record(row)


def summary(connection: sa.Connection, *, run: str | None, sync: str | None) -> list[ReasonCount]:
    """Dead letters by sync, destination and reason, in this order, of one sync or run or all."""
    letters = sa.func.count().label("letters")
    keys = (RUNS.c.sync, DEAD_LETTERS.c.destination, DEAD_LETTERS.c.reason)
    query = _of(sa.select(*keys, letters), sync=sync, run=run).group_by(*keys).order_by(*keys)
    return [ReasonCount(*row) for row in connection.execute(query)]


def _of(query: sa.Select[Any], *, sync: str | None, run: str | None) -> sa.Select[Any]:
    """Over the dead letters and their runs: those of one run, of one sync, or all."""
    query = query.select_from(DEAD_LETTERS.join(RUNS, RUNS.c.id == DEAD_LETTERS.c.run))
    if run is not None:
        query = query.where(DEAD_LETTERS.c.run == run)
    if sync is not None:
        query = query.where(RUNS.c.sync == sync)
    return query


def _records() -> sa.Select[Any]:
    return sa.select(*DEAD_LETTERS.c, RUNS.c.sync).join(RUNS, RUNS.c.id == DEAD_LETTERS.c.run)


def _record(row: sa.Row[Any]) -> DeadLetterRecord:
    kept = row._mapping  # noqa: SLF001 - public in spite of its name (SQLAlchemy: Row._mapping)
    return DeadLetterRecord(
        id=kept["id"],
        run=kept["run"],
        sync=kept["sync"],
        destination=kept["destination"],
        at=kept["at"],
        letter=DeadLetter(
            stream=kept["stream"],
            row=kept["row"],
            reason=kept["reason"],
            message=kept["message"],
            payload=bytes(kept["payload"]),
        ),
    )
