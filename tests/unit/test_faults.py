"""Fault plans: which calls are failed, and what is said of a plan that can't be meant."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from pipeline.errors import ConfigError
from pipeline.local.faults import Fault, FaultPlan


def fired(text: str, calls: int, on: str = "batch") -> list[int]:
    """Numbers, from 1, of the calls that meet a fault."""
    plan = FaultPlan.parse(text)
    return [number for number in range(1, calls + 1) if plan.next(on) is not None]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("", [1]),
        ("after: 3", [4]),
        ("times: 2", [1, 2]),
        ("after: 2, times: 3", [3, 4, 5]),
        ("times: always, after: 7", [8, 9, 10]),
        ("every: 3", [3, 6, 9]),
        ("every: 3, times: 1", [3]),
        ("every: 4, after: 1", [5, 9]),
        ("share: 1", list(range(1, 11))),
        ("share: 0", []),
    ],
)
def test_which_of_ten_calls_fail(rule: str, expected: list[int]) -> None:
    extra = f", {rule}" if rule else ""
    assert fired(f"- {{on: batch{extra}, do: {{status: 503}}}}", 10) == expected


def test_a_share_is_the_same_with_the_same_seed_and_about_right() -> None:
    text = "- {on: batch, share: 0.1, seed: %d, do: {status: 503}}"
    first = fired(text % 1, 2000)
    assert first == fired(text % 1, 2000)
    assert first != fired(text % 2, 2000)
    assert 150 < len(first) < 250


def test_other_calls_are_counted_but_not_met() -> None:
    plan = FaultPlan.parse("- {on: batch, do: {status: 503}}")
    assert plan.next("identify") is None
    assert plan.next("batch") is not None
    assert plan.next("batch") is None
    assert plan.seen() == {"identify": 1, "batch": 2}
    assert plan.fired() == (1,)


def test_a_star_matches_any_call() -> None:
    plan = FaultPlan.parse('- {on: "*", times: always, do: {status: 503}}')
    assert plan.next("batch") is not None
    assert plan.next("read_rows") is not None


def test_the_first_rule_that_is_due_wins_and_later_ones_keep_their_count() -> None:
    plan = FaultPlan.parse(
        "- {on: batch, times: 2, do: {status: 503}}\n- {on: batch, every: 2, do: {status: 429}}\n"
    )
    faults = [plan.next("batch") for _ in range(4)]
    assert [fault.status if fault else None for fault in faults] == [503, 503, None, 429]
    assert plan.fired() == (2, 1)


def test_an_empty_plan_counts_nothing() -> None:
    for plan in (FaultPlan(), FaultPlan.parse("# only a comment\n"), FaultPlan.parse("[]")):
        assert plan.next("batch") is None
        assert not plan
        assert plan.seen() == {}


def test_every_key_of_do_reaches_the_fault() -> None:
    plan = FaultPlan.parse(
        "# what a bad day looks like\n"
        "- on: read_rows\n"
        "  do: {error: RESOURCE_EXHAUSTED, message: quota, delay: 0.5, retry_after: 2,\n"
        "       after_messages: 3}\n"
        "- on: batch\n"
        '  do: {status: 429, retry_after: "http-date 7", body: "<html>", taken: true}\n'
        "- {on: hang, do: {hang: true}}\n"
        "- {on: reset, do: {reset: true, taken: true}}\n"
        "- {on: odd, do: {status: 200, body: x}}\n"
        "- {on: date, do: {status: 503, retry_after: http-date}}\n"
    )
    assert plan.next("read_rows") == Fault(
        error="RESOURCE_EXHAUSTED", message="quota", delay=0.5, retry_after=2.0, after_messages=3
    )
    assert plan.next("batch") == Fault(
        status=429, retry_after=7.0, retry_date=True, body="<html>", taken=True
    )
    assert plan.next("hang") == Fault(hang=True)
    assert plan.next("reset") == Fault(reset=True, taken=True)
    assert plan.next("odd") == Fault(status=200, body="x", taken=True)
    assert plan.next("date") == Fault(status=503, retry_after=2.0, retry_date=True)


def test_what_a_read_can_meet_reaches_the_fault() -> None:
    plan = FaultPlan.parse(
        "- {on: read_rows, do: {wrong: truncated, after_messages: 2}}\n"
        "- {on: create_read_session, do: {lose: table}}\n"
        "- {on: connection, do: {reset: true, after_bytes: 99}}\n"
        "- {on: connection, after: 1, do: {bytes_per_second: 1000}}\n"
        "- {on: connection, after: 2, do: {goaway: true}}\n"
    )
    assert plan.next("read_rows") == Fault(wrong="truncated", after_messages=2)
    assert plan.next("create_read_session") == Fault(lose="table")
    assert plan.next("connection") == Fault(reset=True, after_bytes=99)
    assert plan.next("connection") == Fault(bytes_per_second=1000.0)
    assert plan.next("connection") == Fault(goaway=True)
    assert plan.mentions("connection")
    assert not plan.mentions("batch")


def test_a_star_means_no_connection() -> None:
    plan = FaultPlan.parse('- {on: "*", times: always, do: {status: 503}}')
    assert plan.next("connection") is None
    assert not plan.mentions("connection")


def test_a_fault_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Fault().status = 500  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1", "fault plan: not a list of rules"),
        ("text", "fault plan: not a list of rules"),
        ("- [", "not valid YAML at line 1"),
        ("- 3", "rule 1: not a mapping"),
        ("- {do: {hang: true}}", "rule 1: on: Field required"),
        ('- {on: "", do: {hang: true}}', "rule 1: on: "),
        ("- {on: batch}", "rule 1: do: Field required"),
        ("- {on: batch, do: {}}", "rule 1: do: does nothing"),
        ("- {on: batch, do: {message: x}}", "rule 1: do: does nothing"),
        ("- {on: batch, when: 1, do: {hang: true}}", "rule 1: when: unknown key. Known are: on"),
        ("- {on: batch, do: {code: 1}}", "rule 1: do.code: unknown key. Known are: error"),
        ("- {on: batch, do: {status: 99}}", "rule 1: do.status: "),
        ("- {on: batch, do: {status: '503'}}", "rule 1: do.status: "),
        ("- {on: batch, do: {error: BROKEN}}", "rule 1: do: error: not a gRPC status"),
        ("- {on: batch, do: {delay: soon}}", "rule 1: do.delay: "),
        ("- {on: batch, do: {delay: -1}}", "rule 1: do.delay: "),
        ("- {on: batch, do: {hang: yes}}", "rule 1: do.hang: "),
        ("- {on: batch, do: {hang: true, reset: true}}", "rule 1: do: hang: stands beside reset"),
        ("- {on: batch, do: {delay: 1, body: x}}", "rule 1: do: body: stands without status"),
        ("- {on: batch, do: {status: 503, message: x}}", "message: stands without error"),
        ("- {on: batch, do: {delay: 1, retry_after: 2}}", "retry_after: stands without status"),
        ("- {on: batch, do: {status: 429, retry_after: soon}}", "retry_after: neither seconds"),
        ("- {on: batch, do: {status: 429, retry_after: -2}}", "retry_after: neither seconds"),
        ("- {on: read_rows, do: {wrong: odd}}", "wrong: not a kind of wrong answer (ended, "),
        ("- {on: read_rows, do: {lose: money}}", "lose: not something to lose (session, table)"),
        ("- {on: read_rows, do: {wrong: ended, hang: true}}", "wrong: stands beside hang"),
        ("- {on: read_rows, do: {goaway: true}}", "goaway: stands without `on: connection`"),
        ("- {on: batch, do: {reset: true, after_bytes: 3}}", "after_bytes: stands without `on:"),
        ("- {on: batch, do: {bytes_per_second: 3}}", "bytes_per_second: stands without `on:"),
        ("- {on: connection, do: {bytes_per_second: 0}}", "do.bytes_per_second: "),
        ("- {on: connection, do: {after_bytes: 5}}", "rule 1: do: does nothing"),
        ("- {on: batch, times: never, do: {hang: true}}", "rule 1: times: neither a count"),
        ("- {on: batch, times: 0, do: {hang: true}}", "rule 1: times: neither a count"),
        ("- {on: batch, every: 0, do: {hang: true}}", "rule 1: every: "),
        ("- {on: batch, after: -1, do: {hang: true}}", "rule 1: after: "),
        ("- {on: batch, share: 2, do: {hang: true}}", "rule 1: share: "),
        ("- {on: batch, seed: 1, do: {hang: true}}", "rule 1: seed: stands without share"),
        ("- {on: b, every: 2, share: 0.1, do: {hang: true}}", "share: stands beside every"),
    ],
)
def test_a_bad_plan_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FaultPlan.parse(text)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_all_faults_of_a_plan_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        FaultPlan.parse(
            "- {on: batch, do: {status: 1, oops: 2}}\n"
            "- {on: batch, do: {status: 503}}\n"
            "- {on: batch, times: 0, do: {status: 503}}\n"
        )
    places = [fault.where for fault in caught.value.faults]
    assert places == [
        "fault plan, rule 1: do.status",
        "fault plan, rule 1: do.oops",
        "fault plan, rule 3: times",
    ]


def test_threads_share_the_counts() -> None:
    plan = FaultPlan.parse("- {on: batch, every: 2, do: {status: 503}}")
    met: list[int] = []

    def work() -> None:
        met.append(sum(plan.next("batch") is not None for _ in range(500)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(met) == 1000
    assert plan.seen() == {"batch": 2000}
