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


def test_a_loop_that_closes_just_before_the_result_comes_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unheard: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", unheard.append)
    gate, threads = threading.Event(), list[threading.Thread]()
    loop = asyncio.new_event_loop()

    def work() -> None:
        threads.append(threading.current_thread())
        gate.wait(10)

    task = loop.create_task(in_daemon(work))
    loop.call_soon(lambda: loop.call_soon(task.cancel))
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    # As a thread sees it that asked in the moment before.
    monkeypatch.setattr(loop, "is_closed", lambda: False)
    gate.set()
    threads[0].join(10)
    assert not threads[0].is_alive()
    assert unheard == []
