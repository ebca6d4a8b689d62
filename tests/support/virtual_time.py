"""An event loop whose time passes only while everybody waits, and then at once.

`asyncio.sleep`, timeouts and `loop.time()` all follow. Where nobody would ever wake, it says so
instead of hanging. For code that waits for nothing outside the loop.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        selector = selectors.SelectSelector()
        super().__init__(selector)
        self._now = 0.0
        self.steps = 0
        self.interrupts: dict[int, Callable[[], None]] = {}  # what to do before which step
        really_select = selector.select

        def select(timeout: float | None = None) -> list[Any]:
            ready = really_select(0)
            self.steps += 1
            interrupt = self.interrupts.pop(self.steps, None)
            if interrupt is not None:
                interrupt()
                return ready
            if not ready and timeout is None:
                raise RuntimeError("everybody waits, and nothing will ever happen")
            if not ready:
                self._now += timeout or 0.0
            return ready

        selector.select = select  # type: ignore[method-assign]

    def time(self) -> float:
        return self._now


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
