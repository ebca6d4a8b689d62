from __future__ import annotations

import asyncio

import pytest

from pipeline.errors import ConfigError
from pipeline.run.budget import ByteBudget
from pipeline.run.stopping import first_error, until


async def test_it_bounds_and_serves_in_turn() -> None:
    budget, order = ByteBudget(10), []

    async def take(name: str, nbytes: int) -> None:
        await budget.acquire(nbytes)
        order.append(name)

    await take("first", 8)
    tasks = [asyncio.create_task(take("large", 9)), asyncio.create_task(take("small", 1))]
    await asyncio.sleep(0)
    assert order == ["first"]  # the small one fits, but it is not its turn
    budget.release(8)
    await asyncio.gather(*tasks)
    assert order == ["first", "large", "small"]
    assert budget.used == 10


async def test_more_than_the_capacity_passes_alone() -> None:
    budget = ByteBudget(10)
    await budget.acquire(50)
    waiting = asyncio.create_task(budget.acquire(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    budget.release(50)
    await waiting
    assert budget.used == 1


@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_wait_takes_nothing_and_blocks_nobody(*, granted: bool) -> None:
    budget = ByteBudget(10)
    await budget.acquire(10)
    first, second = (asyncio.create_task(budget.acquire(n)) for n in (10, 5))
    await asyncio.sleep(0)
    if granted:
        budget.release(10)  # first has the room now, but has not run since
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    if not granted:
        budget.release(10)
    await second
    assert budget.used == 5


async def test_until_runs_to_the_end_or_to_the_stop() -> None:
    stop = asyncio.Event()
    assert await until(stop, asyncio.sleep(0))
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    asyncio.get_running_loop().call_soon(stop.set)
    assert not await until(stop, work())
    assert cleaned == [True]


async def test_until_raises_what_the_work_raises_and_passes_cancellation_on() -> None:
    async def broken() -> None:
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        await until(asyncio.Event(), broken())
    started, ended = asyncio.Event(), []

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    task = asyncio.create_task(until(asyncio.Event(), work()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


def test_the_first_of_our_errors_is_told() -> None:
    ours, other = ConfigError("ours"), ValueError("other")
    assert first_error(ours) is ours
    group = BaseExceptionGroup("a", [other, BaseExceptionGroup("b", [ours])])
    assert first_error(group) is ours
    assert first_error(BaseExceptionGroup("a", [other])) is other
