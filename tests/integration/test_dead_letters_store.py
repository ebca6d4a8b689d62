"""Dead letters in the store: found, paged, forgotten, and replayed under the sync's lease."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from stores import LEASE, START, Clock, Stores

from pipeline.checkpoint import SqlStore, dead_letters
from pipeline.checkpoint.keeping import Keeper
from pipeline.errors import LeaseError
from pipeline.model import DeadLetter, Kept, Reading, Result
from pipeline.ports import DeadLetterRecord, LetterFilter, Obstacle, OpenRun

KEY = Fernet.generate_key().decode()
READING = Reading(streams=("s0",), schema=b"", query_started=5)
EVERY = LetterFilter()


@pytest.fixture
def clock(stores: Stores) -> Clock:
    return stores.clock


class Opener:
    """The same state, for holders of whom nobody can tell whether they live."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self._opened: list[SqlStore] = []

    def __call__(self, keeper: Keeper | None = None) -> SqlStore:
        store = SqlStore(
            self.stores.url,
            holder=f"host-{len(self._opened)}:1:x",
            now=self.stores.clock,
            lease_seconds=LEASE,
            keeper=keeper,
        )
        self._opened.append(store)
        return store

    def close(self) -> None:
        for store in self._opened:
            store.close()


@pytest.fixture
def opener(stores: Stores) -> Iterator[Opener]:
    opener = Opener(stores)
    yield opener
    opener.close()


def letter(
    row: int, reason: str = "rejected_400", *, stream: int = 0, payload: bytes = b'{"userId":"7"}'
) -> DeadLetter:
    return DeadLetter(stream=stream, row=row, reason=reason, message="no", payload=payload)


def complete(
    store: SqlStore, sync: str, letters: Sequence[DeadLetter], destination: str = "a"
) -> OpenRun:
    run = store.begin(sync, "f")
    store.attach(run, READING)
    store.add_dead_letters(run, destination, letters)
    rows = max((one.row for one in letters), default=0) + 1
    store.commit(run, {(destination, one.stream): rows for one in letters}, {})
    store.finish(run, Result.COMPLETE, {})
    return run


def pages(store: SqlStore, which: LetterFilter, **how: int | bool) -> list[list[int]]:
    found: list[list[int]] = []
    after = 0
    while page := store.dead_letter_page(which, after=after, **how):  # type: ignore[arg-type]
        found.append([one.id for one in page])
        after = page[-1].id
    return found


# --------------------------------------------------------------------------------- looking


def test_every_filter_by_itself_and_together(opener: Opener, clock: Clock) -> None:
    store = opener()
    first = complete(store, "users", [letter(1), letter(2, "missing_id")])
    clock.time += 10
    complete(store, "users", [letter(3)], destination="b")
    complete(store, "events", [letter(4)])

    def rows(**which: str | float) -> list[int]:
        which_ = LetterFilter(**which)  # type: ignore[arg-type]
        listed = [one.letter.row for one in store.dead_letters(which_)]
        counted = sum(count.letters for count in store.dead_letter_summary(which_))
        paged = [one.letter.row for one in store.dead_letter_page(which_, after=0)]
        assert counted == len(listed)
        assert paged == listed[::-1]
        return paged

    assert rows() == [1, 2, 3, 4]
    assert rows(sync="users") == [1, 2, 3]
    assert rows(run=first.id) == [1, 2]
    assert rows(destination="b") == [3]
    assert rows(reason="rejected_400") == [1, 3, 4]
    assert rows(since=START + 10) == [3, 4]
    assert rows(sync="users", destination="a", reason="missing_id", since=0.0) == [2]
    assert rows(sync="events", destination="b") == []


def test_pages_are_bounded_by_rows_and_by_bytes(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "_PAGE_BYTES", 1_000)
    store = opener()
    big = b"x" * 400
    complete(store, "users", [letter(row, payload=big) for row in range(5)])
    complete(store, "users", [letter(9, payload=big * 5), letter(10, payload=b"")])
    assert pages(store, EVERY) == [[1, 2], [3, 4], [5], [6], [7]]
    assert pages(store, EVERY, rows=1) == [[number] for number in range(1, 8)]
    assert pages(store, LetterFilter(sync="nobody")) == []


@pytest.mark.parametrize("which", [EVERY, LetterFilter(sync="users"), LetterFilter(run="r")])
def test_a_page_walks_the_ids_and_sorts_nothing(tmp_path: Path, which: LetterFilter) -> None:
    """Else every page of a large run would sort all of its letters again."""
    asked: list[tuple[str, object]] = []
    store = SqlStore(f"sqlite:///{tmp_path}/state.db", holder="here:1:x")
    complete(store, "users", [letter(1)])
    engine = store._database.engine  # type: ignore[attr-defined]

    def note(
        _connection: object, _cursor: object, statement: str, given: object, *_: object
    ) -> None:
        asked.append((statement, given))

    sa.event.listen(engine, "before_cursor_execute", note)
    store.dead_letter_page(which, after=0, replayable=True)
    sa.event.remove(engine, "before_cursor_execute", note)
    statement, given = next(each for each in asked if "length" in each[0])
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)  # type: ignore[arg-type]
        told = " ".join(row[-1] for row in plan)
    store.close()
    assert "SEARCH dead_letters USING INTEGER PRIMARY KEY (rowid>?)" in told
    assert "TEMP B-TREE" not in told


def test_clear_forgets_what_fits_in_several_transactions(opener: Opener) -> None:
    store = opener()
    complete(store, "users", [letter(row) for row in range(2_300)])
    complete(store, "events", [letter(1), letter(2, "missing_id")])
    assert store.clear_dead_letters(LetterFilter(sync="events", reason="missing_id")) == 1
    assert store.clear_dead_letters(LetterFilter(sync="users")) == 2_300
    assert [one.letter for one in store.dead_letters()] == [letter(1)]
    assert store.clear_dead_letters() == 1
    assert store.clear_dead_letters() == 0


# --------------------------------------------------------------------------------- keeping


def test_payloads_are_encrypted_in_the_file_and_open_with_the_key(
    opener: Opener, tmp_path: Path
) -> None:
    store = opener(Keeper(keys=[KEY]))
    complete(store, "users", [letter(1, payload=b'{"userId":"the-secret-person"}')])
    store.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files or opener.stores.kind != "sqlite"
    assert not any(b"the-secret-person" in path.read_bytes() for path in files)
    assert opener(Keeper(keys=[KEY])).dead_letters()[0].letter.payload == (
        b'{"userId":"the-secret-person"}'
    )
    for keys in ((), (Fernet.generate_key().decode(),)):
        found = opener(Keeper(keys=keys)).dead_letters()[0]
        assert (found.sealed, found.letter.payload, found.letter.reason) == (
            True,
            b"",
            "rejected_400",
        )


def test_what_is_kept_is_told_with_the_letter(opener: Opener) -> None:
    for number, kept in enumerate(Kept):
        complete(opener(Keeper(kept)), "users", [letter(number)])
    found: list[DeadLetterRecord] = list(opener().dead_letters())[::-1]
    assert [(one.kept, one.letter.payload) for one in found] == [
        (Kept.FULL, b'{"userId":"7"}'),
        (Kept.IDS, b'{"userId":"7"}'),
        (Kept.NONE, b""),
    ]


def test_a_destination_that_quotes_the_row_is_not_kept_quoting(opener: Opener) -> None:
    store = opener(Keeper(Kept.NONE))
    said = DeadLetter(
        stream=0,
        row=1,
        reason="rejected_400",
        message="bob@example.com is no address",
        payload=b'{"traits":{"email":"bob@example.com"}}',
    )
    complete(store, "users", [said])
    assert store.dead_letters()[0].letter.message == "<traits.email> is no address"


def test_words_that_a_database_can_not_keep(opener: Opener) -> None:
    store = opener()
    said = replace(letter(1), message="no\0such \x1b plan \u2603")
    complete(store, "users", [said])
    assert store.dead_letters()[0].letter.message == "no\ufffdsuch \x1b plan \u2603"


# --------------------------------------------------------------------------------- replaying


def test_what_stands_in_the_way_of_a_replay(opener: Opener) -> None:
    sealed = opener(Keeper(keys=[KEY]))
    complete(sealed, "users", [letter(1)])
    store = opener()
    complete(store, "users", [letter(1), letter(2, "missing_id")])
    complete(opener(Keeper(Kept.IDS)), "users", [letter(1), letter(2, "invalid_json")])
    complete(opener(Keeper(Kept.NONE)), "events", [letter(1)], destination="b")
    run = store.begin("events", "f")  # goes on: rows from 2 on will be read again
    store.add_dead_letters(run, "b", [letter(0), letter(1), letter(2), letter(0, stream=1)])
    store.commit(run, {("b", 0): 2}, {})
    store.finish(run, Result.FAILED, {})

    assert store.replay_counts() == [
        ("events", "b", None, 2),
        ("events", "b", Obstacle.NOT_KEPT, 1),
        ("events", "b", Obstacle.PENDING, 2),
        ("users", "a", None, 1),
        ("users", "a", Obstacle.SEALED, 1),
        ("users", "a", Obstacle.INVALID, 2),
        ("users", "a", Obstacle.NOT_KEPT, 1),
    ]
    assert ("users", "a", None, 2) in sealed.replay_counts(LetterFilter(sync="users"))
    replayable = store.dead_letter_page(EVERY, after=0, replayable=True)
    assert [(one.sync, one.letter.row) for one in replayable] == [
        ("users", 1),
        ("events", 0),
        ("events", 1),
    ]


def test_delivered_letters_go_and_rejected_ones_say_why_now(opener: Opener, clock: Clock) -> None:
    store = opener()
    complete(store, "users", [letter(row) for row in range(4)])
    replay = store.begin_replay("users")
    clock.time += 5
    again = DeadLetter(
        stream=0, row=3, reason="rejected_422", message="7 and '777' is", payload=b'{"x":"777"}'
    )
    store.settle_replay(replay, [1, 2], {3: again})
    store.end_replay(replay)
    left = store.dead_letters()[::-1]
    assert [(one.id, one.letter.reason) for one in left] == [
        (3, "rejected_422"),
        (4, "rejected_400"),
    ]
    assert (left[0].letter.message, left[0].at) == ("7 and '<x>' is", START)
    assert (left[0].letter.row, left[0].letter.payload) == (2, b'{"userId":"7"}')


def test_a_replay_and_a_run_of_one_sync_keep_each_other_out(opener: Opener) -> None:
    store, other = opener(), opener()
    replay = store.begin_replay("users")
    for refused in (
        lambda: other.begin("users", "f"),
        lambda: other.begin_replay("users"),
        lambda: other.set_window("users", 0),
    ):
        with pytest.raises(LeaseError, match="under way"):
            refused()
    other.end_replay(other.begin_replay("events"))
    store.end_replay(replay)
    run = other.begin("users", "f")
    with pytest.raises(LeaseError):
        store.begin_replay("users")
    other.finish(run, Result.INTERRUPTED, {})
    store.begin_replay("users")


def test_a_replay_that_lost_its_lease_changes_nothing(opener: Opener, clock: Clock) -> None:
    store, other = opener(), opener()
    complete(store, "users", [letter(1)])
    replay = store.begin_replay("users")
    store.settle_replay(replay, [], {})
    clock.time += 50
    store.settle_replay(replay, [], {})  # renews it
    clock.time += 50
    with pytest.raises(LeaseError):
        other.begin("users", "f")
    clock.time += 11
    run = other.begin("users", "f")
    with pytest.raises(LeaseError):
        store.settle_replay(replay, [1], {})
    with pytest.raises(LeaseError):
        store.end_replay(replay)
    assert len(other.dead_letters()) == 1
    other.commit(run, {}, {})  # it still has the lease


def test_what_was_replayed_of_an_unfinished_run_does_not_come_back(opener: Opener) -> None:
    """Its row is below the Checkpoint: the run that goes on neither reads nor keeps it again."""
    store = opener()
    run = store.begin("users", "f")
    store.attach(run, READING)
    store.add_dead_letters(run, "a", [letter(1), letter(7)])
    store.commit(run, {("a", 0): 5}, {})
    store.finish(run, Result.INTERRUPTED, {})

    replay = store.begin_replay("users")
    found = store.dead_letter_page(LetterFilter(sync="users"), after=0, replayable=True)
    assert [one.letter.row for one in found] == [1]  # row 7 is the run's own to send again
    store.settle_replay(replay, [found[0].id], {})
    store.end_replay(replay)

    again = store.begin("users", "f")
    assert again.id == run.id
    assert store.dead_letters() == []
    assert again.checkpoints == {("a", 0): 5}
