"""The adaptive limit: what holds after any history, and how it moves in plain ones."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.send.concurrency import Adaptive, Fixed, Outcome

ANSWERS = st.lists(
    st.tuples(
        st.sampled_from(Outcome),
        st.floats(0.001, 60),  # seconds it took
        st.floats(0, 2),  # seconds since the last answer
        st.integers(0, 8),  # how many leave after it
        st.booleans(),  # the destination is back after an outage
    ),
    max_size=80,
)


class Flight:
    """Requests that leave and land at times of our own."""

    def __init__(self, limit: Fixed) -> None:
        self.limit, self.now = limit, 0.0
        self.flying: list[int] = []

    def leave(self, most: int = 1_000) -> None:
        while most > 0 and not self.limit.full and self.limit.wait(self.now) == 0:
            self.flying.append(self.limit.start(self.now))
            most -= 1

    def land(self, outcome: Outcome, seconds: float) -> None:
        self.limit.learn(self.flying.pop(0), self.now, seconds, outcome)
        self.limit.end()

    def round(self, outcomes: Iterable[Outcome], seconds: float = 0.1) -> None:
        """All that fits leaves, and lands after so many seconds."""
        self.leave()
        self.now += seconds
        for outcome in list(outcomes)[: len(self.flying)]:
            self.land(outcome, seconds)
        self.now += self.limit.wait(self.now)

    def rounds(self, count: int, outcome: Outcome, seconds: float = 0.1) -> None:
        for _ in range(count):
            self.round([outcome] * 300, seconds)


@given(most=st.integers(1, 256), answers=ANSWERS)
def test_it_stays_between_one_and_the_most_and_somebody_may_always_leave_soon(
    most: int, answers: list[tuple[Outcome, float, float, int, bool]]
) -> None:
    flight = Flight(Adaptive(most))
    for outcome, seconds, step, leaving, back in answers:
        flight.leave(leaving)
        flight.now += step
        if flight.flying:
            flight.land(outcome, seconds)
        if back:
            flight.limit.restart()
        assert 1 <= flight.limit.limit <= most
        assert flight.limit.flying == len(flight.flying)
        assert 0.0 <= flight.limit.wait(flight.now) <= 1.0 + 1e-9
        assert flight.limit.holds_back or flight.limit.limit == most


@given(answers=ANSWERS)
def test_it_finds_back_to_the_most_from_anywhere(
    answers: list[tuple[Outcome, float, float, int, bool]],
) -> None:
    flight = Flight(Adaptive(6))
    for outcome, seconds, step, leaving, _ in answers:
        flight.leave(leaving)
        flight.now += step
        if flight.flying:
            flight.land(outcome, seconds)
    flight.rounds(300, Outcome.DELIVERED)
    assert flight.limit.limit == 6


@given(answers=ANSWERS)
def test_refusals_only_ever_lower_it(
    answers: list[tuple[Outcome, float, float, int, bool]],
) -> None:
    flight = Flight(Adaptive(64))
    for _, seconds, step, _, _ in answers:
        before = flight.limit.limit
        flight.leave()
        flight.now += step
        if flight.flying:
            flight.land(Outcome.THROTTLE, seconds)
        assert flight.limit.limit <= before


def test_it_doubles_at_first() -> None:
    flight, seen = Flight(Adaptive(50)), []
    for _ in range(6):
        seen.append(flight.limit.limit)
        flight.rounds(1, Outcome.DELIVERED)
    assert seen == [4, 8, 16, 32, 50, 50]


def test_answers_a_little_sooner_than_before_do_not_hold_the_doubling_up() -> None:
    flight, limits = Flight(Adaptive(64)), []
    for seconds in (0.2, 0.19, 0.18, 0.17):
        flight.round([Outcome.DELIVERED] * 300, seconds)
        limits.append(flight.limit.limit)
    assert limits == [8, 16, 32, 64]


def test_it_does_not_grow_beyond_what_is_used() -> None:
    flight = Flight(Adaptive(64))
    for _ in range(100):
        flight.leave(3)
        flight.now += 0.1
        while flight.flying:
            flight.land(Outcome.DELIVERED, 0.1)
    assert flight.limit.limit == 4


def test_too_much_at_first_goes_back_to_what_went_well() -> None:
    flight = Flight(Adaptive(64))
    flight.rounds(3, Outcome.DELIVERED)
    assert flight.limit.limit == 32
    flight.rounds(1, Outcome.THROTTLE)
    assert flight.limit.limit == 16
    flight.rounds(1, Outcome.DELIVERED)
    assert flight.limit.limit == 17  # and from there on by one


@pytest.mark.parametrize("outcome", [Outcome.THROTTLE, Outcome.FAULT])
def test_a_refusal_costs_a_tenth_and_once_per_round(outcome: Outcome) -> None:
    flight = Flight(Adaptive(40))
    flight.rounds(10, Outcome.DELIVERED)
    assert flight.limit.limit == 40
    seen = [40]
    for _ in range(6):
        flight.rounds(1, outcome)
        if flight.limit.limit != seen[-1]:
            seen.append(flight.limit.limit)
    assert seen[:4] == [40, 36, 32, 28]


def test_a_few_faults_are_no_sign_of_load_but_one_throttle_is() -> None:
    flight = Flight(Adaptive(40))
    flight.rounds(10, Outcome.DELIVERED)
    flight.round([Outcome.FAULT] * 2 + [Outcome.DELIVERED] * 38)
    flight.round([Outcome.NEITHER] * 38 + [Outcome.DELIVERED] * 2)
    assert flight.limit.limit == 40
    flight.round([Outcome.THROTTLE] + [Outcome.DELIVERED] * 39)
    assert flight.limit.limit == 36


def test_late_answers_lower_it_until_they_are_usual() -> None:
    flight = Flight(Adaptive(40))
    flight.rounds(20, Outcome.DELIVERED)
    flight.rounds(2, Outcome.DELIVERED, 0.3)
    low = flight.limit.limit
    assert low < 40
    flight.rounds(200, Outcome.DELIVERED, 0.3)
    assert flight.limit.limit == 40


def test_what_was_too_much_is_tried_again_less_and_less_often() -> None:
    flight, tries, at = Flight(Adaptive(64)), [], 0
    for at in range(1200):
        too_much = flight.limit.limit > 10
        if too_much:
            tries.append(at)
        flight.rounds(1, Outcome.THROTTLE if too_much else Outcome.DELIVERED)
    gaps = [b - a for a, b in pairwise(tries)][3:]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 200


def test_below_one_it_is_a_pace() -> None:
    flight = Flight(Adaptive(64))
    flight.rounds(3, Outcome.DELIVERED)
    flight.rounds(40, Outcome.THROTTLE)
    assert flight.limit.limit == 1
    flight.leave()
    assert len(flight.flying) == 1
    assert flight.limit.wait(flight.now) > 0.1  # longer than an answer takes


def test_after_an_outage_it_begins_low_and_doubles_up_to_where_it_was() -> None:
    flight = Flight(Adaptive(64))
    flight.rounds(10, Outcome.DELIVERED)
    flight.limit.restart()
    seen = [flight.limit.limit]
    for _ in range(5):
        flight.rounds(1, Outcome.DELIVERED)
        seen.append(flight.limit.limit)
    assert seen == [4, 8, 16, 32, 64, 64]


def test_answers_from_before_a_fall_do_not_lower_it_again() -> None:
    flight = Flight(Adaptive(40))
    flight.rounds(10, Outcome.DELIVERED)
    flight.leave()
    flight.now += 0.1
    for _ in range(40):
        flight.now += 0.2  # each of them long after the last decision
        flight.land(Outcome.THROTTLE, 0.1)
    assert flight.limit.limit == 36


def test_a_fixed_limit_stays() -> None:
    flight = Flight(Fixed(3))
    flight.rounds(5, Outcome.THROTTLE, 9.0)
    flight.limit.restart()
    flight.rounds(5, Outcome.DELIVERED)
    assert flight.limit.limit == 3
    assert not flight.limit.holds_back
