"""A bound on each of many waits, for the price of one timer.

`asyncio.timeout` starts and stops a timer for every wait, which costs more than all else that is
done for a message. Here one timer looks, when it goes off, whether the present wait is overdue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


class Idle:
    """One wait at a time, in one task at a time. Between waits no time passes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rings = self._due = 0.0
        self._waiting: asyncio.Task[object] | None = None
        self._late = False

    async def wait(self, awaitable: Awaitable[_T], seconds: float) -> _T:
        """What is awaited. Raises TimeoutError when it takes longer."""
        self._due = self._loop.time() + seconds
        if self._timer is None or self._rings > self._due:
            self._set()
        self._waiting = task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines run in tasks
        before = task.cancelling()
        try:
            return await awaitable
        except asyncio.CancelledError:
            # As in asyncio.timeout: somebody else may have cancelled it as well.
            if self._late and task.uncancel() <= before:
                raise TimeoutError from None
            raise
        finally:
            self._waiting, self._late = None, False

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _set(self) -> None:
        self.close()
        self._rings = self._due
        self._timer = self._loop.call_at(self._rings, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._waiting is None:
            return  # the next wait sets it again
        if self._due > self._loop.time():
            self._set()
        else:
            self._late = True
            self._waiting.cancel()
