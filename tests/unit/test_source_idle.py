import asyncio

import pytest

from pipeline.source.idle import Idle


async def test_a_wait_that_is_too_long_ends() -> None:
    waits = Idle()
    with pytest.raises(TimeoutError):
        await waits.wait(asyncio.Event().wait(), 0.0)
    assert await waits.wait(asyncio.sleep(0, "next"), 60.0) == "next"
    waits.close()


async def test_time_between_waits_does_not_count() -> None:
    waits = Idle()
    await waits.wait(asyncio.sleep(0), 0.001)
    await asyncio.sleep(0.005)  # longer than allowed, but nobody waits
    assert await waits.wait(asyncio.sleep(0, "fine"), 60.0) == "fine"
    waits.close()


async def test_a_later_wait_may_be_shorter() -> None:
    waits = Idle()
    await waits.wait(asyncio.sleep(0), 3600.0)
    with pytest.raises(TimeoutError):
        await waits.wait(asyncio.Event().wait(), 0.0)


async def test_being_cancelled_is_not_being_late() -> None:
    async def wait() -> None:
        waits = Idle()
        try:
            await waits.wait(asyncio.Event().wait(), 60.0)
        finally:
            waits.close()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_what_is_awaited_comes_through() -> None:
    async def fail() -> None:
        raise ValueError("its own")

    waits = Idle()
    with pytest.raises(ValueError, match="its own"):
        await waits.wait(fail(), 60.0)
    waits.close()
