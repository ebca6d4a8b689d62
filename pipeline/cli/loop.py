"""The event loop of a verb, and the signals that ask it to stop.

The first SIGINT or SIGTERM sets an event, and the work under way ends in good order; a second
one ends the process at once. Signals are handled by Python rather than by the loop, so that
the second works even when the loop is stuck.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

Value = TypeVar("Value")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# So many objects may be there more than at the last time before the collector looks at the new
# ones. What a run makes goes with its last reference; but a wave of requests is more than the 700
# of Python's own, and each of them was looked at: an eighth of a sender's CPU.
_YOUNG = 50_000
SHOW_CURSOR = b"\x1b[?25h\n"


def run_async(work: Coroutine[Any, Any, Value]) -> Value:
    """Run a coroutine to its end on an event loop of its own: uvloop where there is one."""
    gc.set_threshold(_YOUNG)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def _loop_factory() -> Any:
    if sys.platform == "win32":  # pragma: no cover - uvloop isn't made for it
        return None
    import uvloop  # noqa: PLC0415 - absent on Windows

    return uvloop.new_event_loop


class Stopping:
    """Turns signals into an event; a context manager around the whole of a verb's work.

    Until `event` is asked for nothing has begun: then the first signal ends the verb at once.

    promise: what is said on the first signal. hurried: the exit code of the second.
    """

    def __init__(self, promise: str, *, hurried: int) -> None:
        self._promise = promise
        self._hurried = hurried
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None
        self._before: dict[signal.Signals, Any] = {}
        self.asked = False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def event(self) -> asyncio.Event:
        """The event that the first signal sets, for the loop that runs now."""
        self._loop, self._event = asyncio.get_running_loop(), asyncio.Event()
        if self.asked:
            self._event.set()
        return self._event

    def _heard(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._loop is None or self._loop.is_closed():
            raise KeyboardInterrupt
        if self.asked:
            if sys.stderr.isatty():
                os.write(2, SHOW_CURSOR)
            os._exit(self._hurried)
        self.asked = True
        self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._event is not None:
            self._event.set()
        if self._promise:
            # Not by a Console of its own: progress bars put their stderr in place meanwhile.
            sys.stderr.write(f"{self._promise}\n")
