"""The bound on memory: bytes between the encoder and the checkpoint.

Whoever would hold more waits, first come first served; that wait is the backpressure which slows
the source down. One event loop only.
"""

from __future__ import annotations

import asyncio
from collections import deque


class ByteBudget:
    """At most `capacity` bytes are held, or one holder of more when nobody else holds any."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, nbytes: int) -> None:
        """Wait for room and take it. A cancelled wait takes nothing."""
        if not self._waiting and self._fits(nbytes):
            self.used += nbytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((nbytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # granted and cancelled in the same moment
                self.release(nbytes)
            else:
                turn.cancel()
                self._grant()
            raise

    def take(self, nbytes: int) -> None:
        """Count bytes that are here already, without waiting."""
        self.used += nbytes

    def release(self, nbytes: int) -> None:
        """Give room back."""
        self.used -= nbytes
        self._grant()

    def _fits(self, nbytes: int) -> bool:
        return self.used == 0 or self.used + nbytes <= self.capacity

    def _grant(self) -> None:
        while self._waiting:
            nbytes, turn = self._waiting[0]
            if not turn.cancelled():
                if not self._fits(nbytes):
                    return
                self.used += nbytes
                turn.set_result(None)
            self._waiting.popleft()
