"""When a destination fails across the board: who may still try it, and for how long.

After `FAILURES` failures in a row the circuit opens: one request at a time goes out, after pauses
that grow, until one is answered. Nothing is dropped meanwhile: senders wait, then readers. Any
answer that took or refused rows ends the outage; its deadline counts from its first failure.
Pure and clock-free: times are seconds of any origin.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from pipeline.model import Action, Verdict
from pipeline.send.retry import RetryPolicy

FAILURES = 10
"""Failures in a row that open it. Ten of ten is no chance while half of the requests succeed."""

# Probes wait as throttled requests do: never for nothing.
_PROBE = Verdict(action=Action.RETRY, throttled=True)


class Circuit:
    """The state of one destination, shared by all of its senders."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._policy, self._uniform = policy, uniform
        self._since = math.inf
        self._failures = self._probes = 0
        self._resume = -math.inf
        self.is_open = False
        """Whether only one request at a time may go."""

    @property
    def deadline(self) -> float:
        """When the outage has lasted too long; infinite while there is none."""
        return self._since + self._policy.deadline

    def failed(self, now: float, *, probe: bool) -> None:
        """An attempt failed. probe: it left while the circuit was open.

        What left before it opened and fails after that tells nothing new.
        """
        self._since = min(self._since, now)
        if self.is_open and not probe:
            return
        self._failures += 1
        if self._failures >= FAILURES:
            self.is_open = True
            pause = self._policy.wait(self._probes, _PROBE, self._uniform)
            self._probes += 1
            # The last try is made at the deadline, not after it.
            self._resume = min(now + pause, max(now, self.deadline))

    def answered(self) -> bool:
        """An answer came that took or refused rows. Whether that ended an open circuit."""
        if not self._failures:
            return False
        was_open, self.is_open = self.is_open, False
        self._since, self._resume = math.inf, -math.inf
        self._failures = self._probes = 0
        return was_open

    def wait(self, now: float) -> float:
        """Seconds until the next request may go."""
        return self._resume - now if self._resume > now else 0.0
