"""Requests and rows per second: when the next request may go. Pure and clock-free.

The generic cell rate algorithm: each limit keeps the time at which its next request is due, moved
on by 1/rate for every unit sent. It grants at most burst + rate * t units in any t seconds, and
with a burst of 1 no more than the rate in any second. Shared by all senders of a destination.
"""

from __future__ import annotations


class Rate:
    """One limit: `rate` units per second, `burst` of them at once."""

    __slots__ = ("_due", "_interval", "_slack")

    def __init__(self, rate: float, burst: float = 1.0) -> None:
        self._interval = 1.0 / rate
        self._slack = (burst - 1.0) * self._interval
        self._due = 0.0

    def due(self, now: float) -> float:
        """The time at which the next request may go; never before now."""
        return max(now, self._due - self._slack)

    def take(self, at: float, units: int) -> None:
        """Count a request of `units` that goes at that time."""
        self._due = max(at, self._due) + units * self._interval


class Limiter:
    """All limits of one destination, and the pause it asked for. Times in seconds, any origin."""

    def __init__(
        self, requests: float | None = None, rows: float | None = None, burst: int = 1
    ) -> None:
        self._requests = Rate(requests, burst) if requests else None
        self._rows = Rate(rows) if rows else None
        self._resume = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next request may go; 0 when it may go now."""
        at = max(now, self._resume)
        for rate in (self._requests, self._rows):
            if rate is not None:
                at = rate.due(at)
        return at - now

    def take(self, now: float, rows: int) -> None:
        """Count a request of `rows` rows that goes now."""
        if self._requests is not None:
            self._requests.take(now, 1)
        if self._rows is not None:
            self._rows.take(now, rows)

    def pause(self, until: float) -> None:
        """Let nothing go before that time."""
        self._resume = max(self._resume, until)

    def paused(self, now: float) -> bool:
        """Whether the destination asked for a pause that is not over."""
        return self._resume > now
