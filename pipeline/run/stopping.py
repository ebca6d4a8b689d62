"""Work that a stop may cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from pipeline.errors import PipelineError


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


def first_error(error: BaseException) -> BaseException:
    """What to tell of an error: the first of ours in its groups, else the first at all."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [first_error(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, PipelineError)), leaves[0])
