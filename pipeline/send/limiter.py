"""Requests and rows per second: when the next request may go. Pure and clock-free.

Requests: the generic cell rate algorithm. It keeps the time at which the next one is due, moved on
by 1/rate for each that goes. Any second sees at most `rate + burst - 1` of them: with a burst of 1
they are spaced evenly, and no second sees more than the rate (a rate of 2.5: three, 0.4 s apart).
Rows: spaced the same way by what went before, and never more than the rate in any second; for that
a request may hold only `most_rows` rows. Shared by all senders of a destination.
Of several processes each has a part of the limits, which changes when one of them ends.
"""

from __future__ import annotations

import math
from collections import deque

# Into how many requests a second's rows are cut at least, where the rate of requests allows it:
# what a request can't have of a second any more is lost to it, so a piece is a tenth at most.
_PIECES = 10
# When a process ends, what it has sent is in the second that was just then.
_UNTIL_FREE = 1.0


def share_of(limit: float, place: int, of: int) -> float:
    """The part of a limit per second that the process at `place` among `of` has.

    All parts together are the limit. Each is a whole number, but for one that has the rest, so
    that no second sees more than the limit over all processes either. Only where the limit is
    smaller than `of` the parts are equal fractions: then it holds on average.
    A part never shrinks while processes end: with `of`, the places behind theirs move up.
    """
    whole = int(limit)
    if whole < of:
        return limit / of
    each, more = divmod(whole, of)
    return each + (place < more) + (limit - whole if place == 0 else 0.0)


class Rate:
    """One limit: `rate` units per second, `burst` of them at once."""

    __slots__ = ("_due", "_interval", "_slack")

    def __init__(self, rate: float, burst: float = 1.0) -> None:
        self._interval = 1.0 / rate
        self._slack = (burst - 1.0) * self._interval
        self._due = -math.inf

    def due(self, now: float) -> float:
        """The time at which the next request may go; never before now."""
        return max(now, self._due - self._slack)

    def take(self, at: float, units: int) -> None:
        """Count a request of `units` that goes at that time."""
        self._due = max(at, self._due) + units * self._interval

    def change(self, now: float, rate: float, burst: float = 1.0) -> None:
        """Have another rate from now on: what went is worked off by the new one."""
        if self._due > now:
            self._due = now + (self._due - now) / self._interval / rate
        self._interval = 1.0 / rate
        self._slack = (burst - 1.0) * self._interval


class RowRate:
    """`rate` rows in any second, in requests of different sizes, none of more than the rate."""

    __slots__ = ("_even", "_lately", "_rate", "_rows")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._even = Rate(rate)
        self._lately: deque[tuple[float, int]] = deque()  # what went in the last second
        self._rows = 0

    def due(self, now: float, rows: int) -> float:
        """The time at which a request of `rows` rows may go; never before now."""
        at = self._even.due(now)
        # A rate below one row per second: the spacing alone holds it.
        room, left = max(self._rate, 1.0) - rows, self._rows
        for gone, count in self._lately:
            if left <= room and at < gone + 1.0:
                break
            if left > room:
                at = max(at, gone + 1.0)
            left -= count
        return at

    def take(self, at: float, rows: int) -> None:
        """Count a request of `rows` rows that goes at that time."""
        self._even.take(at, rows)
        self._lately.append((at, rows))
        self._rows += rows
        while self._lately[0][0] + 1.0 <= at:
            self._rows -= self._lately.popleft()[1]

    def change(self, now: float, rate: float) -> None:
        """Have another rate from now on, for the second that ends now too."""
        self._even.change(now, rate)
        self._rate = rate


class Limiter:
    """All limits of one destination, and the pause it asked for. Times in seconds, any origin.

    processes: among how many the limits may be shared at most.
    """

    def __init__(
        self,
        requests: float | None = None,
        rows: float | None = None,
        burst: int = 1,
        *,
        processes: int = 1,
    ) -> None:
        self._limits = (requests, rows, burst)
        self._share = (0, 1)
        self._larger: deque[tuple[float, int, int]] = deque()  # from when on: place, of
        self._requests = Rate(requests, burst) if requests else None
        self._rows = RowRate(rows) if rows else None
        self._resume = -math.inf
        self.most_rows = _most_rows(requests, rows, processes) if rows else None
        """The most rows that one request may hold; None: any number. By the smallest share."""

    def share(self, now: float, place: int, of: int) -> None:
        """Keep to the part of the limits that the process at `place` among `of` has.

        A smaller part counts from now on, for the second that ends now too. A larger one counts a
        second later: until then those who left it may have used it.
        """
        told = self._larger[-1][1:] if self._larger else self._share
        if told == (place, of):
            return
        if of < told[1]:
            self._larger.append((now + _UNTIL_FREE, place, of))
        else:
            self._larger.clear()
            self._keep_to(now, place, of)

    def _grow(self, now: float) -> None:
        while self._larger and self._larger[0][0] <= now:
            self._keep_to(*self._larger.popleft())

    def _keep_to(self, now: float, place: int, of: int) -> None:
        self._share = (place, of)
        requests, rows, burst = self._limits
        if self._requests is not None and requests:
            more, extra = divmod(burst - 1, of)
            at_once = 1 + more + (place < extra)
            self._requests.change(now, share_of(requests, place, of), at_once)
        if self._rows is not None and rows:
            self._rows.change(now, share_of(rows, place, of))

    def wait(self, now: float, rows: int = 1) -> float:
        """Seconds until a request of `rows` rows may go; 0 when it may go now."""
        if self._larger:
            self._grow(now)
        at = max(now, self._resume)
        if self._requests is not None:
            at = self._requests.due(at)
        if self._rows is not None:
            at = self._rows.due(at, rows)
        return at - now

    def take(self, now: float, rows: int) -> None:
        """Count a request of `rows` rows that goes now."""
        if self._larger:
            self._grow(now)
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


def _most_rows(requests: float | None, rows: float, processes: int) -> int:
    last = processes - 1
    pace = share_of(requests, last, processes) if requests else _PIECES
    pieces = min(_PIECES, max(1, int(pace)))
    return max(1, int(share_of(rows, last, processes) / pieces))
