from __future__ import annotations

import asyncio
import threading

import pytest

from pipeline.source.threads import in_daemon


async def test_results_and_errors_come_back() -> None:
    def add(a: int, *, b: int) -> int:
        assert threading.current_thread().daemon
        return a + b

    assert await in_daemon(add, 1, b=2) == 3
    with pytest.raises(ZeroDivisionError):
        await in_daemon(lambda: 1 // 0)


async def test_cancelling_stops_the_waiting_only() -> None:
    gate, ended = threading.Event(), threading.Event()

    def work() -> None:
        gate.wait(10)
        ended.set()

    task = asyncio.create_task(in_daemon(work))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    assert await asyncio.to_thread(ended.wait, 10)
    await asyncio.sleep(0)  # what came too late is passed over


def test_a_loop_that_is_gone_does_no_harm() -> None:
    gate = threading.Event()

    async def leave() -> None:
        task = asyncio.create_task(in_daemon(gate.wait, 10))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    gate.set()
