"""How many of the requests may be repetitions. Pure and clock-free.

Retries that come on top of full load keep an overloaded destination down. So at most a share of
what was sent lately may be retries, beside a few that are always allowed; one beyond that waits,
and is never dropped. Defaults are those of Finagle's RetryBudget: a fifth, ten a second, 10 s.
"""

from __future__ import annotations

import math


class RetryAllowance:
    """share: of all requests. floor: retries per second. memory: seconds that count as lately."""

    def __init__(self, *, share: float = 0.2, floor: float = 10.0, memory: float = 10.0) -> None:
        self._share, self._memory = share, memory
        self._room = floor * memory
        self._used = 0.0  # retries less the share of requests, fading with time
        self._at = -math.inf

    def requested(self, now: float) -> None:
        """A request goes out, a retry or not."""
        self._fade(now)
        self._used -= self._share

    def retried(self, now: float) -> None:
        """A retry was let through."""
        self._fade(now)
        self._used += 1.0

    def wait(self, now: float) -> float:
        """Seconds until a retry may go; 0 when it may go now."""
        self._fade(now)
        most = self._room - 1.0
        return self._memory * math.log(self._used / most) if self._used > most else 0.0

    def _fade(self, now: float) -> None:
        if now > self._at:
            self._used *= math.exp((self._at - now) / self._memory)
            self._at = now
