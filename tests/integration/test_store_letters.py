"""Dead letters: kept once each, listed, counted, forgotten with the rows read again."""

from __future__ import annotations

from dataclasses import replace

from stores import COUNTS, START, Stores, complete, letter

from pipeline.checkpoint import SqlStore
from pipeline.model import Result
from pipeline.ports import LetterFilter


def test_dead_letters_newest_first(stores: Stores, store: SqlStore) -> None:
    users, events = store.begin("users", "f"), store.begin("events", "f")
    store.add_dead_letters(users, "customerio", [letter(1), letter(2)])
    stores.clock.time += 3
    store.add_dead_letters(events, "customerio", [letter(1)])

    listed = store.dead_letters()

    assert [(each.sync, each.letter) for each in listed] == [
        ("events", letter(1)),
        ("users", letter(2)),
        ("users", letter(1)),
    ]
    assert [each.at for each in listed] == [START + 3, START, START]
    assert {each.destination for each in listed} == {"customerio"}
    assert store.dead_letters(limit=1) == listed[:1]
    assert store.dead_letters(LetterFilter(sync="users")) == listed[1:]
    assert store.dead_letters(LetterFilter(run=events.id)) == listed[:1]
    assert store.dead_letters(LetterFilter(sync="users", run=events.id)) == []


def test_the_same_row_again_is_ignored(store: SqlStore) -> None:
    run = store.begin("users", "f")
    store.add_dead_letters(run, "a", [letter(1), letter(1)])
    store.add_dead_letters(run, "a", [letter(1, reason="rejected_400"), letter(2)])
    store.add_dead_letters(run, "b", [letter(1)])
    store.add_dead_letters(run, "a", [letter(1, stream=1)])

    kept = {(each.destination, each.letter) for each in store.dead_letters()}

    assert kept == {
        ("a", letter(1)),
        ("a", letter(2)),
        ("b", letter(1)),
        ("a", letter(1, stream=1)),
    }
    assert len(store.dead_letters()) == len(kept)


def test_no_dead_letters_are_no_write(store: SqlStore) -> None:
    store.add_dead_letters(store.begin("users", "f"), "a", [])

    assert store.dead_letters() == []


def test_dead_letters_outlive_a_restart_and_an_abandoned_run(store: SqlStore) -> None:
    run = store.begin("users", "f")
    store.add_dead_letters(run, "a", [letter(1)])
    store.finish(store.restart(run, "gone"), Result.INTERRUPTED, {})
    store.set_window("users", 0)

    assert [each.run for each in store.dead_letters()] == [run.id]


def test_a_run_that_is_gone_on_with_keeps_the_letters_that_its_checkpoints_cover(
    store: SqlStore,
) -> None:
    complete(store)
    other = store.begin("events", "f")
    store.add_dead_letters(other, "a", [letter(9)])
    run = store.begin("users", "f")
    for destination in ("a", "b", "c"):
        store.add_dead_letters(run, destination, [letter(row) for row in (4, 5, 6)])
        store.add_dead_letters(run, destination, [letter(row, stream=1) for row in (0, 9)])
    store.commit(run, {("a", 0): 5, ("a", 1): 9, ("b", 0): 7, ("b", 1): 0}, COUNTS)
    store.finish(run, Result.INTERRUPTED, {})
    assert (
        len(store.dead_letters(LetterFilter(sync="users"), limit=99)) == 15
    )  # to be seen until it goes on

    again = store.begin("users", "f")

    kept = {
        (each.destination, each.letter.stream, each.letter.row)
        for each in store.dead_letters(LetterFilter(sync="users"), limit=99)
    }
    assert kept == {("a", 0, 4), ("a", 1, 0), ("b", 0, 4), ("b", 0, 5), ("b", 0, 6)}
    assert len(store.dead_letters(LetterFilter(sync="events"))) == 1
    store.add_dead_letters(again, "a", [letter(5, reason="rejected_400")])
    assert (
        store.dead_letters(LetterFilter(sync="users"), limit=1)[0].letter.reason == "rejected_400"
    )


def test_one_dead_letter(store: SqlStore) -> None:
    run = store.begin("users", "f")
    odd = replace(letter(2**40), payload=b'{"\xc3\xa9":"\\u0000"}', message="")
    store.add_dead_letters(run, "a", [letter(1), odd])
    newest = store.dead_letters()[0]

    assert store.dead_letter(newest.id) == newest
    assert newest.letter == odd
    assert type(newest.letter.payload) is bytes
    assert store.dead_letter(newest.id + 1) is None


def test_the_summary_counts_by_reason(store: SqlStore) -> None:
    users, events = store.begin("users", "f"), store.begin("events", "f")
    store.add_dead_letters(users, "a", [letter(1), letter(2), letter(3, reason="rejected_400")])
    store.add_dead_letters(users, "b", [letter(1)])
    following = store.restart(users, "gone")
    store.add_dead_letters(following, "a", [letter(1)])
    store.add_dead_letters(events, "a", [letter(1)])

    of_users = [
        ("users", "a", "missing_id", 3),
        ("users", "a", "rejected_400", 1),
        ("users", "b", "missing_id", 1),
    ]
    assert store.dead_letter_summary() == [("events", "a", "missing_id", 1), *of_users]
    assert store.dead_letter_summary(LetterFilter(sync="users")) == of_users
    assert store.dead_letter_summary(LetterFilter(run=following.id)) == [
        ("users", "a", "missing_id", 1)
    ]
    assert store.dead_letter_summary(LetterFilter(run=following.id, sync="events")) == []
