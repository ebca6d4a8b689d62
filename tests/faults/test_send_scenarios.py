"""Every scenario of send_scenarios.yml: the real Sender, simulated servers, virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from simulator import Outcome, simulate

SCENARIOS: dict[str, dict[str, Any]] = {
    one["name"]: one
    for one in yaml.safe_load(
        Path(__file__).with_name("send_scenarios.yml").read_text(encoding="utf-8")
    )
}
SLOW = {"one hour of 503", "constant link", "jittery link", "503 now and then", "brown-out"}
SLOW |= {"latency cliff at concurrency 20", "100/s token-bucket server", "poison batch"}
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SCENARIOS]


@pytest.mark.parametrize("name", NAMES)
def test_a_sender_copes(name: str) -> None:
    scenario = SCENARIOS[name]
    outcome = simulate(scenario)
    ends = scenario.get("ends")
    if ends is None:
        assert outcome.error is None
        assert outcome.ended < scenario["seconds"] + 120  # and what was left is delivered soon
    else:
        assert ends["message"] in str(outcome.error)
        assert ends["at"][0] <= outcome.ended <= ends["at"][1]
    if "link" in scenario:
        used = outcome.throughput(scenario["converged"], scenario["seconds"]) / scenario["link"]
        assert scenario.get("used", 0.9) <= used <= 1.02
    if "wasted" in scenario:
        assert outcome.wasted <= scenario["wasted"]
    if "most" in scenario:
        assert outcome.busiest_second() <= scenario["most"]
    if "most_rows" in scenario:
        assert outcome.busiest_second(rows=True) <= scenario["most_rows"]
    if "pauses" in scenario:
        assert outcome.throttled(scenario["pauses"]) > 0
    if "during" in scenario:
        span, (low, high) = scenario["during"], scenario["during"]["requests"]
        assert low <= outcome.requests(span["from"], span["to"]) <= high
    if "arrived" in scenario:
        _only_the_poison_is_missing(outcome, scenario)


def _only_the_poison_is_missing(outcome: Outcome, scenario: dict[str, Any]) -> None:
    (poison,) = scenario["server"]["poison"]
    first = poison - poison % scenario["rows"]
    assert outcome.rows_accepted(first, first + scenario["rows"]) == [
        row for row in range(first, first + scenario["rows"]) if row != poison
    ]


@pytest.mark.slow
def test_a_fixed_concurrency_sends_more_again_in_a_storm() -> None:
    refusing = SCENARIOS["100/s token-bucket server"]
    adaptive, fixed = simulate(refusing), simulate(refusing, fixed=64)
    assert adaptive.wasted < 0.15
    assert fixed.wasted > 0.25
    # Both keep the server busy while there is enough to do; what was put off takes longer.
    assert fixed.ended > adaptive.ended

    asking = SCENARIOS["Retry-After in seconds"]
    adaptive, fixed = simulate(asking), simulate(asking, fixed=64)
    assert adaptive.wasted < 0.05
    assert fixed.wasted > 0.15


def test_retries_are_a_fifth_of_the_requests_and_ten_a_second() -> None:
    half = {"server": {"latency": 0.1, "failing": 0.5, "status": 500}, "seconds": 30}
    outcome = simulate(half, fixed=64)
    assert outcome.throttled("retry_budget") > 10
    retried = [at for at, _ in outcome.retried]
    for second in range(12, 25):
        since = second - 10
        sent = outcome.requests(since, second)
        assert sum(since <= at < second for at in retried) <= 0.2 * sent + 10 * 10 + 30


def test_a_simulation_is_the_same_every_time() -> None:
    scenario = SCENARIOS["token bucket of less than one"] | {"seconds": 5}
    assert simulate(scenario).departures == simulate(scenario).departures
    assert simulate(scenario).departures != simulate(scenario, seed=8).departures
