"""The model of shards in benchmarks/: it loses nothing, keeps the rate, and is as the engine is."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checkpoint import store
from pipeline.config.models import Config
from pipeline.run import engine
from pipeline.run import shards as joining

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import _shards  # noqa: E402 - found by the line above
from _shards_case import Case  # noqa: E402


def skewed(streams: int, rows: int = 2_000_000, seed: int = 7) -> tuple[int, ...]:
    weights = [random.Random(seed + each).lognormvariate(0, 1) for each in range(streams)]
    return tuple(int(rows * weight / sum(weights)) for weight in weights)


def test_its_constants_are_the_engines() -> None:
    assert engine._COMMIT_EVERY == _shards.COMMIT_EVERY
    assert store._SHARD_SECONDS == _shards.LEASE
    assert joining._EVERY == _shards.POLL


def test_its_defaults_are_those_of_the_configuration() -> None:
    fields, case = Config.model_fields, Case()
    send, read = fields["send"].get_default(call_default_factory=True), fields["read"]
    assert case.permits == send.max_concurrency
    assert case.buffer == send.buffer_bytes // 343
    assert case.reads == read.get_default(call_default_factory=True).streams
    assert case.drain == fields["drain"].default


def test_one_shard_takes_as_long_as_its_requests_under_the_rate() -> None:
    case = Case(sizes=(1_400 * 500,), rate=50.0)
    outcomes = _shards.run(case)
    assert outcomes.requests == 500
    # From the first request to the last, and one answer; and until it saw the session.
    least = case.opening + 499 / 50 + 0.7 * case.latency
    assert least <= outcomes.seconds <= least + 0.7 * case.latency + _shards.POLL


def test_one_shard_takes_as_long_as_it_encodes() -> None:
    case = Case(sizes=(1_400 * 1_000,) * 8, rate=None)
    seconds = case.rows / case.encode
    assert seconds < _shards.run(case).seconds < seconds * 1.05 + _shards.POLL


def test_one_shard_takes_as_long_as_its_answers() -> None:
    case = Case(sizes=(1_400 * 500,) * 8, rate=None, latency=1.0, permits=20)
    seconds = 4_000 / 20 * case.latency
    # `adaptive` gets there by doubling from 4, and takes a late answer of many for trouble.
    assert seconds < _shards.run(case).seconds < seconds * 1.25


def test_many_shards_share_the_rate_and_not_their_own_speed() -> None:
    of = skewed(64)
    alone, together = (Case(shards=each, sizes=of, rate=20.0) for each in (1, 8))
    assert _shards.run(together).seconds == pytest.approx(_shards.run(alone).seconds, rel=0.1)
    alone, together = (replace(each, rate=None) for each in (alone, together))
    assert _shards.run(together).seconds < _shards.run(alone).seconds / 2


@given(data=st.data(), shards=st.integers(1, 6), drained=st.booleans())
@settings(max_examples=100, deadline=None)
def test_nothing_is_lost_and_no_second_is_over_the_rate(
    data: st.DataObject, shards: int, *, drained: bool
) -> None:
    death = st.tuples(st.floats(0, 60), st.integers(0, shards - 1))
    case = Case(
        shards=shards,
        sizes=tuple(data.draw(st.lists(st.integers(0, 60_000), max_size=30))),
        rate=float(data.draw(st.integers(shards, 60))),
        deaths=tuple(data.draw(st.lists(death, max_size=4))),
        drained=drained,
        latency=data.draw(st.sampled_from([0.02, 0.5, 2.0])),
        buffer=data.draw(st.sampled_from([3_000, 100_000])),
        seed=data.draw(st.integers(0, 5)),
    )
    outcomes = _shards.run(case)
    assert outcomes.settled == case.rows
    assert sorted(outcomes.ended) == list(range(shards))
    # Who joins just after another ended has its share at once; who was there waits for a second.
    if not any(
        end <= join < end + 1 for join in outcomes.joined for end in outcomes.ended.values()
    ):
        assert outcomes.widest <= (case.rate or 0)
    assert outcomes.sent >= case.rows
    if not case.deaths:
        assert outcomes.sent == case.rows


def halfway(*, drained: bool) -> Case:
    return Case(
        shards=4, sizes=skewed(64), rate=100.0, deaths=((8.0, 1),), drained=drained, drain=60.0
    )


def test_a_kill_repeats_a_second_of_its_share_and_costs_the_back_off() -> None:
    case = halfway(drained=False)
    killed, plain = _shards.run(case), _shards.run(replace(case, deaths=()))
    a_second, unsure = 1_400 * 100 / 4, _shards.COMMIT_EVERY + 2 * case.latency
    assert 0 < killed.sent - case.rows <= a_second * unsure + 1_400
    # 10 s of back-off and 5 s of start, in which a quarter of the rate is nobody's.
    assert 15 / 4 * 0.8 < killed.seconds - plain.seconds < 15 + _shards.POLL


def test_a_drained_process_repeats_nothing() -> None:
    case = halfway(drained=True)
    drained = _shards.run(case)
    assert drained.sent == case.rows
    assert drained.seconds > _shards.run(replace(case, deaths=())).seconds


def test_a_restarted_process_waits_for_the_lease_of_the_killed_one() -> None:
    case = replace(halfway(drained=False), start=0.0)
    slow = replace(case, start=5.0)
    # The back-off of 10 s ends before the lease of 15 s: a faster start gains little.
    assert _shards.run(slow).seconds - _shards.run(case).seconds < 2 * _shards.POLL


def test_each_failure_of_a_shard_doubles_its_back_off() -> None:
    once = Case(shards=2, sizes=(100_000,) * 4, rate=10.0, deaths=((3.0, 0),))
    thrice = replace(once, deaths=((3.0, 0), (25.0, 0), (60.0, 0)))
    assert _shards.run(thrice).ended[0] - _shards.run(once).ended[0] > 20 + 40


@pytest.mark.slow
def test_the_benchmark_runs_and_meets_its_goals() -> None:
    command = [sys.executable, str(BENCHMARKS / "shards_model.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    last = json.loads(done.stdout.splitlines()[-1])
    assert set(last) == {"bench", "machine", "figures", "ratios", "goals", "met"}
    assert last["bench"] == "shards_model"
    assert last["met"] is True
