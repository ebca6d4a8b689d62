"""What users and their surroundings get wrong, through the whole engine."""

from __future__ import annotations

import pytest
from local_system import KEY, Starter

from pipeline.errors import ConfigError, CredentialsError, DestinationError, StateError
from pipeline.model import Result


async def test_one_row_and_no_row(system: Starter) -> None:
    async with system(rows=1) as one:
        report = await one.run()
        assert (report.result, report.destinations["cio"].delivered) == (Result.COMPLETE, 1)
        report = await one.run("SELECT id AS userId FROM app.users WHERE id < 0")
        assert (report.result, report.destinations["cio"].read) == (Result.COMPLETE, 0)
    (call,) = one.received()
    assert call["type"] == "identify"
    assert (call["userId"], call["traits"]) == ("1", {"name": "Name of 1"})


@pytest.mark.slow
async def test_a_row_of_ten_thousand_columns_is_too_large_and_kept(system: Starter) -> None:
    columns = ", ".join(f"{index} AS c{index}" for index in range(10_000))
    async with system() as one:
        report = await one.run(f"SELECT 'u' AS userId, {columns}")
    assert report.result is Result.COMPLETE
    assert one.letters() == [(0, "payload_too_large")]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT id, name FROM app.users", "userId or anonymousId.*It gives: id, name"),
        ("UPDATE app.users SET name = '' WHERE TRUE", "an UPDATE|a UPDATE"),
        ("SELECT userId FROM", "Syntax error"),
        ("SELECT id AS userId FROM app.nothing", "Not found: Table local:app.nothing"),
    ],
)
async def test_a_query_that_can_not_work_is_refused_before_anything_is_sent(
    system: Starter, query: str, said: str
) -> None:
    async with system(rows=5) as one:
        report = await one.run(query)
        assert (await one.stats())["requests"] == 0
    assert isinstance(report.error, ConfigError)
    with pytest.raises(ConfigError, match=said):
        raise report.error
    assert report.exit_code == 78


async def test_no_permission_is_exit_77(system: Starter) -> None:
    async with system() as one:
        report = await one.run("SELECT id AS userId FROM forbidden.users")
    assert isinstance(report.error, CredentialsError)
    assert "roles/bigquery.dataViewer" in str(report.error)
    assert report.exit_code == 77


async def test_a_wrong_key_halts_and_keeps_every_row(system: Starter) -> None:
    async with system(rows=2_000) as one:
        report = await one.run(key="wrong-secret")
        assert isinstance(report.error, CredentialsError)
        assert report.exit_code == 77
        assert "wrong-secret" not in str(report.error)
        assert one.letters() == []
        report = await one.run(key=KEY)  # the same run goes on with the right key
        assert report.destinations["cio"].delivered == 2_000
        assert (await one.stats())["accepted"] == 2_000


async def test_a_destination_that_is_down_from_the_start_is_exit_75_and_loses_nothing(
    system: Starter,
) -> None:
    async with system(rows=2_000) as one:
        report = await one.run(customerio="http://127.0.0.1:9", deadline="0.2s")
        assert isinstance(report.error, DestinationError)
        assert report.exit_code == 75
        assert report.destinations["cio"].delivered == 0
        report = await one.run()
        assert report.result is Result.COMPLETE
        assert (await one.stats())["accepted"] == 2_000


async def test_a_state_that_can_not_be_written_is_found_before_the_query_runs(
    system: Starter,
) -> None:
    async with system(rows=5) as one:
        with pytest.raises(StateError, match="/dev/null"):
            await one.run(RETL_STATE="sqlite:////dev/null/state.db")
        assert (await one.stats())["requests"] == 0


@pytest.mark.parametrize(("bad", "requests"), [(1, 30), (5, 120)])
async def test_rows_that_only_the_destination_refuses_are_bisected_out(
    system: Starter, bad: int, requests: int
) -> None:
    # We pass text in `timestamp` on; Customer.io refuses what is no date.
    query = (
        f"SELECT id AS userId, IF(MOD(id, {1_400 // bad}) = 7, 'soon', '2026-11-24T06:00:00Z') "
        "AS timestamp FROM app.users"
    )
    async with system(rows=1_400) as one:
        report = await one.run(query)
        counts = report.destinations["cio"]
        stats = await one.stats()
    assert counts.dead_lettered == bad
    assert counts.delivered == stats["accepted"] == 1_400 - bad
    assert counts.requests <= requests
    assert [reason for _, reason in one.letters()] == ["rejected_400"] * bad
