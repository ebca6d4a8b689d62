"""Which rows may leave: `Order`, step by step. Whatever the rows: see the properties."""

from __future__ import annotations

import numpy as np
from ordering_run import Api, packed

from pipeline.model import Action, Limits, Verdict
from pipeline.send.cut import Part, cut
from pipeline.send.order import Order, first_rows, users_of, without

LIMITS = Limits(payload_bytes=30, batch_bytes=10_000, batch_rows=4)


def made(users: list[int], limits: Limits = LIMITS) -> Order:
    order = Order(limits, Api.envelope)
    for batch in packed(users, limits):
        order.arrive(batch)
    return order


def rows(part: Part) -> list[int]:
    return [piece.payloads.row(index) for piece in part for index in range(piece.start, piece.stop)]


def test_rows_of_different_users_leave_as_they_came() -> None:
    order = made(list(range(10)))
    assert [rows(order.take()) for _ in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert not order.is_waiting
    assert order.take() == ()


def test_what_is_not_cut_is_not_copied() -> None:
    (batch,) = packed([0, 1, 2], LIMITS)
    order = Order(LIMITS, Api.envelope)
    order.arrive(batch)
    assert order.take()[0].payloads.data is batch.slices[0].payloads.data


def test_a_user_waits_for_his_own_rows_and_lets_others_by() -> None:
    order = made([1, 2, 1, 3, 1, 4, 2, 5, 6])
    first = order.take()
    assert rows(first) == [0, 1, 2, 3]  # in one request they stand in order
    second = order.take()
    assert rows(second) == [5, 7, 8]
    assert not order.is_waiting
    assert [rows(done.batch.slices) for done in order.settle(second)] == [[8]]
    assert not order.is_waiting
    (delivery,) = order.settle(first)
    assert delivery.batch.rows == 4
    third = order.take()
    assert rows(third) == [4, 6]  # of two users, together
    assert [done.batch.rows for done in order.settle(third)] == [4]


def test_a_request_is_filled_with_rows_that_came_later() -> None:
    order = made([1, 2, 3, 4, 1, 2, 3, 5, 6, 7, 8, 9])
    first, second = order.take(), order.take()
    assert rows(second) == [7, 8, 9, 10]
    order.settle(first)
    assert rows(order.take()) == [4, 5, 6, 11]


def test_what_does_not_fit_stays_the_first_of_its_user() -> None:
    # Rows of 17 to 26 bytes: five of the last, full Batch would seem to fit.
    limits = Limits(payload_bytes=30, batch_bytes=60, batch_rows=50)
    order = made([1, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3], limits)
    sent: list[int] = []
    while part := order.take():
        assert sum(len(piece.view) + 1 for piece in part) <= 59
        sent += rows(part)
        order.settle(part)
    assert sorted(sent) == list(range(16))
    for user in (1, 2, 3):
        his = [row for row in sent if [1, 1, 2, 3, *[1, 2, 3] * 4][row] == user]
        assert his == sorted(his)


def test_a_part_frees_only_users_with_nothing_left() -> None:
    order = made([1, 2, 1, 3, 1, 2, 3])
    first, second = cut(order.take(), 2)
    assert order.take() == ()
    order.settle(first, [second])
    assert rows(order.take()) == [5]  # of 2; 1 has a row in what is left
    order.settle(second)
    assert rows(order.take()) == [4, 6]


def test_refused_rows_are_told_with_their_batch() -> None:
    order = made([1, 2, 3, 4, 1, 2])
    first, refusal = order.take(), Verdict(action=Action.REJECT, reason="r", message="m")
    one, two, three = cut(first, 1, 3)
    assert order.settle(three, [one, two], refusal) == []
    assert order.settle(two, [one]) == []
    (delivery,) = order.settle(one, (), refusal)
    assert [(x.row, int(x.payload), x.reason, x.message) for x in delivery.rejections] == [
        (0, 0, "r", "m"),
        (3, 3, "r", "m"),
    ]


def test_rows_of_one_user_and_of_the_others() -> None:
    part = made([1, 2, 2, 1]).take()
    others, his = without(part, 1)
    assert (rows(others), rows(his)) == ([1, 2], [0, 3])
    others, his = without(part, 2)
    assert (rows(others), rows(his)) == ([0, 3], [1, 2])
    assert without(part, 3) == (part, ())
    assert without(others, 1) == ((), others)


def test_the_rows_to_try_first_overtake_none() -> None:
    limits = Limits(payload_bytes=30, batch_bytes=10_000, batch_rows=100)
    many = made([*range(50), *range(50)], limits).take()
    assert first_rows(many, 5) == [0, 12, 24, 36, 49]
    few = made([7] * 10 + [8] * 10, limits).take()
    assert first_rows(few, 5) == [0, 1, 2, 3, 4]
    assert np.array_equal(users_of(few), [7] * 10 + [8] * 10)
