"""Work that a stop may cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from pipeline.errors import PipelineError

_T = TypeVar("_T")


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, Any]) -> bool:
    """Run `work` to its end, and say True; or, once stop is set, cancel it and say False.

    Raises what the work raises. Cancelling this cancels the work.
    """
    task = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        return False
    task.result()
    return True


async def unless_failed(watched: asyncio.Task[None], work: Coroutine[Any, Any, _T]) -> _T:
    """The work's result; if `watched` fails or ends before, cancel it and raise what that raised.

    Cancelling this cancels the work.
    """
    task = asyncio.create_task(work)
    try:
        either: set[asyncio.Task[Any]] = {task, watched}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if watched.done():
            watched.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    return task.result()


async def each_to_its_end(
    works: Sequence[Coroutine[Any, Any, _T]],
) -> tuple[list[_T], list[BaseException]]:
    """All results and all errors, whatever becomes of the others. Cancelling this cancels all."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        if tasks:
            await asyncio.wait(tasks)
    finally:
        for task in tasks:  # done already, unless this is cancelled
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    errors = [(task, task.exception()) for task in tasks]
    results = [task.result() for task, error in errors if error is None]
    return results, [error for _, error in errors if error is not None]


async def within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set within the time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def first_error(error: BaseException) -> BaseException:
    """What to tell of an error: the first of ours in its groups, else the first at all."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [first_error(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, PipelineError)), leaves[0])
