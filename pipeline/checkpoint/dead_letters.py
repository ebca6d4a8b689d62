"""Dead letters in the state: kept once each, listed, counted, paged, forgotten.

All functions work inside the caller's transaction. Payloads are row content: they are stored
and handed out, never put into a message. What is kept of them is the Keeper's to say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pipeline.checkpoint.keeping import Keeper, words
from pipeline.checkpoint.schema import CHECKPOINTS, DEAD_LETTERS, RUNS, upsert
from pipeline.model import DeadLetter, Kept, Reason
from pipeline.ports import (
    ALL,
    DeadLetterRecord,
    LetterFilter,
    Obstacle,
    ReasonCount,
    ReplayCount,
    Share,
)

# Of a page, before it is decrypted; one letter may be larger.
_PAGE_BYTES = 4_000_000
_JOINED = DEAD_LETTERS.join(RUNS, RUNS.c.id == DEAD_LETTERS.c.run)


def add(
    connection: sa.Connection,
    run: str,
    destination: str,
    letters: Sequence[DeadLetter],
    *,
    at: float,
    keeper: Keeper,
) -> None:
    """Keep those that are not kept yet, by (run, destination, stream, row); ids in this order."""
    # As they were read, and not as bisection found them: that is how they are replayed.
    letters = sorted(letters, key=lambda letter: (letter.stream, letter.row))
    connection.execute(
        upsert(connection, DEAD_LETTERS).on_conflict_do_nothing(
            index_elements=["run", "destination", "stream", "row"]
        ),
        [_row(run, destination, letter, at, keeper) for letter in letters],
    )


def _row(
    run: str, destination: str, letter: DeadLetter, at: float, keeper: Keeper
) -> dict[str, object]:
    payload = keeper.keep(letter.payload)
    return {
        "run": run,
        "destination": destination,
        "stream": letter.stream,
        "row": letter.row,
        "at": at,
        "reason": letter.reason,
        "message": words(letter),
        "payload": payload.data,
        "kept": payload.kept.value,
        "sealed": payload.sealed,
    }


def drop_uncovered(connection: sa.Connection, run: str, streams: Share = ALL) -> None:
    """Forget those of a run that its Checkpoints don't cover: their rows will be read again.

    Then they may be delivered; if not, they are kept anew. None of them was ever replayed: a
    replay leaves them out, as pending.
    """
    mine = DEAD_LETTERS.c.stream % streams.of == streams.place
    connection.execute(
        sa.delete(DEAD_LETTERS).where(DEAD_LETTERS.c.run == run, mine, sa.not_(_covered()))
    )


def _covered() -> sa.ColumnElement[bool]:
    """Whether the Checkpoints of its run cover a letter's row: then it is not read again."""
    settled = sa.select(CHECKPOINTS.c.rows).where(
        CHECKPOINTS.c.run == DEAD_LETTERS.c.run,
        CHECKPOINTS.c.destination == DEAD_LETTERS.c.destination,
        CHECKPOINTS.c.stream == DEAD_LETTERS.c.stream,
    )
    return DEAD_LETTERS.c.row < sa.func.coalesce(settled.scalar_subquery(), 0)


# ------------------------------------------------------------------------------- looking


def newest(
    connection: sa.Connection, which: LetterFilter, limit: int, keeper: Keeper
) -> list[DeadLetterRecord]:
    """At most `limit`, newest first."""
    # Found by id alone, so that sorting many does not carry their payloads along.
    found = sa.select(DEAD_LETTERS.c.id).select_from(_JOINED).where(*_fits(which))
    ids = found.order_by(DEAD_LETTERS.c.id.desc()).limit(limit)
    query = _records().where(DEAD_LETTERS.c.id.in_(ids)).order_by(DEAD_LETTERS.c.id.desc())
    return [_record(row, keeper) for row in connection.execute(query)]


def one(connection: sa.Connection, number: int, keeper: Keeper) -> DeadLetterRecord | None:
    """The dead letter with this id."""
    row = connection.execute(_records().where(DEAD_LETTERS.c.id == number)).first()
    return None if row is None else _record(row, keeper)


def summary(connection: sa.Connection, which: LetterFilter) -> list[ReasonCount]:
    """Dead letters by sync, destination and reason, in this order."""
    keys = (RUNS.c.sync, DEAD_LETTERS.c.destination, DEAD_LETTERS.c.reason)
    query = sa.select(*keys, sa.func.count()).select_from(_JOINED).where(*_fits(which))
    return [ReasonCount(*row) for row in connection.execute(query.group_by(*keys).order_by(*keys))]


def page(
    connection: sa.Connection,
    which: LetterFilter,
    *,
    after: int,
    rows: int,
    replayable: bool,
    keeper: Keeper,
) -> list[DeadLetterRecord]:
    """The next of them by id, of a bounded number and size; empty at the end."""
    conditions = _fits(which, by_id=True)
    if replayable:
        conditions.append(_obstacle(keeper) == "")
    while True:
        sizes = (
            sa.select(DEAD_LETTERS.c.id, sa.func.length(DEAD_LETTERS.c.payload))
            .select_from(_JOINED)
            .where(DEAD_LETTERS.c.id > after, *conditions)
            .order_by(DEAD_LETTERS.c.id)
            .limit(rows)
        )
        ids: list[int] = []
        nbytes = 0
        for number, size in connection.execute(sizes).all():
            nbytes += size
            if ids and nbytes > _PAGE_BYTES:
                break
            ids.append(number)
        query = _records().where(DEAD_LETTERS.c.id.in_(ids)).order_by(DEAD_LETTERS.c.id)
        found = [_record(row, keeper) for row in connection.execute(query)]
        if found or not ids:
            return found
        after = ids[-1]  # all of them were forgotten in this moment, which is not the end


def _fits(which: LetterFilter, *, by_id: bool = False) -> list[sa.ColumnElement[bool]]:
    """What a filter asks of letters and their runs.

    by_id: they are read by ascending id, page after page. Through an index of runs each page
    would sort all letters of a run again, so the column is hidden from it.
    """
    run: sa.ColumnElement[str] = DEAD_LETTERS.c.run
    if by_id:
        run = run.concat("")
    found: list[sa.ColumnElement[bool]] = []
    if which.sync is not None:
        of_sync = sa.select(RUNS.c.id).where(RUNS.c.sync == which.sync)
        found.append(run.in_(of_sync) if by_id else RUNS.c.sync == which.sync)
    if which.run is not None:
        found.append(run == which.run)
    if which.destination is not None:
        found.append(DEAD_LETTERS.c.destination == which.destination)
    if which.reason is not None:
        found.append(DEAD_LETTERS.c.reason == which.reason)
    if which.since is not None:
        found.append(DEAD_LETTERS.c.at >= which.since)
    return found


def _records() -> sa.Select[Any]:
    return sa.select(*DEAD_LETTERS.c, RUNS.c.sync).select_from(_JOINED)


def _record(row: sa.Row[Any], keeper: Keeper) -> DeadLetterRecord:
    kept = row._mapping  # noqa: SLF001 - public in spite of its name (SQLAlchemy: Row._mapping)
    payload = keeper.open(bytes(kept["payload"]), sealed=kept["sealed"])
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
            payload=payload or b"",
        ),
        kept=Kept(kept["kept"]),
        sealed=payload is None,
    )


# ------------------------------------------------------------------------------- replaying


def replay_counts(
    connection: sa.Connection, which: LetterFilter, keeper: Keeper
) -> list[ReplayCount]:
    """How many can be replayed, or can't, by sync, destination and obstacle."""
    keys = (RUNS.c.sync, DEAD_LETTERS.c.destination)
    obstacle = _obstacle(keeper).label("obstacle")
    query = sa.select(*keys, obstacle, sa.func.count()).select_from(_JOINED).where(*_fits(which))
    # By the place of the column: Postgres does not see that two CASEs of parameters are one.
    grouped = query.group_by(*keys, sa.literal_column("3")).order_by(*keys, obstacle)
    return [
        ReplayCount(sync, destination, Obstacle(found) if found else None, letters)
        for sync, destination, found, letters in connection.execute(grouped)
    ]


def _obstacle(keeper: Keeper) -> sa.ColumnElement[str]:
    """Why a letter can't be replayed, as far as the state knows; empty text when it can."""
    cases = [
        (DEAD_LETTERS.c.reason.in_([reason.value for reason in Reason]), Obstacle.INVALID),
        (DEAD_LETTERS.c.kept != Kept.FULL.value, Obstacle.NOT_KEPT),
        (sa.and_(RUNS.c.unfinished, sa.not_(_covered())), Obstacle.PENDING),
    ]
    if not keeper.can_open:
        cases.append((DEAD_LETTERS.c.sealed, Obstacle.SEALED))
    whens = [(condition, sa.literal(obstacle.value)) for condition, obstacle in cases]
    return sa.case(*whens, else_=sa.literal(""))


def reject_again(connection: sa.Connection, rejected: Mapping[int, DeadLetter]) -> None:
    """Note why letters, by their ids, were rejected this time. When they first were stays."""
    if not rejected:
        return
    connection.execute(
        sa.update(DEAD_LETTERS)
        .where(DEAD_LETTERS.c.id == sa.bindparam("number"))
        .values(reason=sa.bindparam("why"), message=sa.bindparam("said")),
        [
            {"number": number, "why": letter.reason, "said": words(letter)}
            for number, letter in rejected.items()
        ],
    )


# ------------------------------------------------------------------------------- forgetting


def forget(connection: sa.Connection, ids: Collection[int]) -> None:
    """Delete those with these ids."""
    if ids:
        connection.execute(
            sa.delete(DEAD_LETTERS).where(DEAD_LETTERS.c.id == sa.bindparam("number")),
            [{"number": number} for number in ids],
        )


def clear(connection: sa.Connection, which: LetterFilter, most: int) -> int:
    """Delete at most `most` of them; how many."""
    some = sa.select(DEAD_LETTERS.c.id).select_from(_JOINED).where(*_fits(which)).limit(most)
    ids = connection.scalars(some).all()
    forget(connection, ids)
    return len(ids)
