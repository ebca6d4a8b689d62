"""`max_rejected` halts a run that would reject more, whichever process rejected the rows."""

from __future__ import annotations

import pytest
from memory_run import MemoryDeliverer, MemorySource, MemoryStore, run

from pipeline.config import SyncConfig
from pipeline.errors import TooManyRejected
from pipeline.model import Batch, Result
from pipeline.run.report import RunReport


def sync(max_rejected: int | str) -> SyncConfig:
    return SyncConfig.model_validate(
        {"source": "s", "call": "identify", "destinations": ["api"], "max_rejected": max_rejected}
    )


async def once(
    store: MemoryStore, api: MemoryDeliverer, max_rejected: int | str, rows: int = 100
) -> RunReport:
    tolerates = sync(max_rejected).tolerates
    return await run(MemorySource([rows]), store, {"api": api}, tolerates=tolerates)


def bad_first(number: int) -> MemoryDeliverer:
    def behave(batch: Batch) -> set[int]:
        span = batch.span
        return {row for row in range(span.first, span.end) if row < number}

    return MemoryDeliverer(behave)


@pytest.mark.parametrize("limit", [3, "3%"])
async def test_exactly_as_many_as_allowed_complete(limit: int | str) -> None:
    report = await once(MemoryStore(), bad_first(3), limit)
    assert (report.result, report.destinations["api"].dead_lettered) == (Result.COMPLETE, 3)


@pytest.mark.parametrize("limit", [3, "3%"])
async def test_one_more_halts_before_the_rest_is_sent(limit: int | str) -> None:
    store, api = MemoryStore(), bad_first(4)
    report = await once(store, api, limit)
    assert isinstance(report.error, TooManyRejected)
    assert (report.result, report.exit_code) == (Result.FAILED, 65)
    assert len(api.delivered) < 96
    assert len(store.letters) == 4  # kept, and durable


async def test_gone_on_with_it_halts_before_it_sends_anything() -> None:
    store, api = MemoryStore(), bad_first(4)
    await once(store, api, 3)
    again = bad_first(0)
    report = await once(store, again, 3)
    assert isinstance(report.error, TooManyRejected)
    assert again.sent.requests == 0
    assert again.delivered == []


async def test_gone_on_with_under_a_higher_limit_it_completes_and_counts_them_all() -> None:
    store, api = MemoryStore(), bad_first(4)
    await once(store, api, 3)
    again = MemoryDeliverer(lambda batch: {50} if batch.span.first <= 50 < batch.span.end else ())
    report = await once(store, again, 5)
    assert (report.result, report.destinations["api"].dead_lettered) == (Result.COMPLETE, 5)


async def test_what_earlier_processes_rejected_counts_towards_the_limit() -> None:
    store, api = MemoryStore(), bad_first(4)
    await once(store, api, 3)
    again = MemoryDeliverer(
        lambda batch: {row for row in (50, 60, 70) if batch.span.first <= row < batch.span.end}
    )
    report = await once(store, again, 5)
    assert isinstance(report.error, TooManyRejected)
    assert "6 rows" in str(report.error)
