"""The bound on frames: bytes asked of a source, or here, and not encoded yet.

How large the next frame is, is known only when it is here: what is set aside for it is the size
of those before. Whoever finds no room asks later; the source then waits, without a timeout
running. One event loop only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from pipeline.ports import Frame

# Frames are about a megabyte, but may be 128: until the first is here, few are asked for.
_UNKNOWN = 8_000_000
# Part of the way that an expectation falls with each smaller frame; it rises at once.
_FALL = 8


class FrameRoom:
    """At most `capacity` bytes of frames for all readers of a lane, or one larger frame."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._expected: int | None = None
        self._waiting: deque[asyncio.Future[int]] = deque()
        self.used = 0
        """Bytes of the frames here, and set aside for those asked for."""

    async def each(self, frames: AsyncGenerator[Frame, None]) -> AsyncGenerator[Frame, None]:
        """The same frames; each is over with when the next one is asked for."""
        async with aclosing(frames):
            while True:
                held = await self._set_aside()
                try:
                    frame = await anext(frames, None)
                    if frame is None:
                        return
                    self.used += frame.nbytes - held
                    held = frame.nbytes
                    self._learn(held)
                    yield frame
                finally:
                    self.used -= held
                    self._grant()

    def _learn(self, nbytes: int) -> None:
        if self._expected is None:
            self._expected = nbytes
        fall = max(0, self._expected - nbytes) // _FALL
        self._expected = max(nbytes, self._expected - fall)
        self._grant()

    async def _set_aside(self) -> int:
        """Wait, first come first served, for room for another frame; how much it is."""
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._grant()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # granted and cancelled in the same moment
                self.used -= turn.result()
            else:
                turn.cancel()
            self._grant()
            raise

    def _grant(self) -> None:
        while self._waiting:
            nbytes = min(_UNKNOWN, self._capacity) if self._expected is None else self._expected
            if self.used and self.used + nbytes > self._capacity:
                return
            turn = self._waiting.popleft()
            if not turn.done():
                self.used += nbytes
                turn.set_result(nbytes)
