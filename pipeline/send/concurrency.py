"""How many requests may be in flight. Pure and clock-free.

`Adaptive` is Vector's adaptive request concurrency (vector.dev/docs/architecture/arc): once per
mean latency the limit grows by one if it was reached and answers came as soon as ever, and falls
to nine tenths if they came late or the destination pushed back. Added: it doubles until the first
trouble (TCP's slow start); what was too much is not tried again at once; a few faults are no sign
of load; a slot that was refused rests, or quick refusals would make for more requests; and it may
fall below one, to one request at times. docs/adr/0006 says why, docs/sending.md what it is worth.
"""

from __future__ import annotations

import math
from enum import Enum

# Vector's published settings: weight of the newest latency, deviations that count as late, and
# what is left of the limit then.
_WEIGHT, _DEVIATIONS, _DECREASE = 0.4, 2.5, 0.9
# Latencies within a thousandth are the same; ten per cent later than ever is not late yet, or a
# link without any jitter would be slowed down by a rounding error.
_SAME, _LATE = 1.001, 1.1
# Seconds later that may be our own doing: an answer waits while this process encodes, for a few
# turns of its threads (5 ms each) and of the event loop. No destination is known by so little.
_OURS = 0.05
# A destination fails for other reasons than load too: one answer may, and a tenth of many.
_FAULTS = 0.1
# Mean latencies to stay below a limit that was too much: at first, and after many failed tries.
_PATIENCE, _MOST_PATIENCE = 8, 256
# The first limit (four connections are polite to anybody: browsers take six), and the last.
_FIRST, _LEAST = 4, 0.01
# The mean latency while nothing has been delivered yet, and the longest rest and time between
# two decisions: seconds.
_UNKNOWN, _LONGEST = 0.1, 1.0


class Outcome(Enum):
    """What an answer says of the load."""

    DELIVERED = 0
    NEITHER = 1  # rows were refused, or it failed for reasons of its own
    FAULT = 2  # it failed as an overloaded destination does: 503, 504, a timeout, a reset
    THROTTLE = 3  # it said so: 429


class Fixed:
    """A limit that stays. Counts what is in flight."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.flying = 0
        self._left = 0

    @property
    def full(self) -> bool:
        """Whether the next request has to wait for the end of another."""
        return self.flying >= self.limit

    @property
    def room(self) -> int:
        """How many more may leave; less than 0 after the limit fell."""
        return self.limit - self.flying

    @property
    def holds_back(self) -> bool:
        """Whether the limit is below the configured one."""
        return False

    def wait(self, _now: float) -> float:
        """Seconds until the next request may go, though there is room for it."""
        return 0.0

    def start(self, _now: float) -> int:
        """A request leaves; its number."""
        self.flying += 1
        self._left += 1
        return self._left

    def end(self) -> int:
        """A request has ended, or was cancelled; how many more may leave."""
        self.flying -= 1
        return self.room

    def learn(self, number: int, now: float, seconds: float, outcome: Outcome) -> None:
        """What the request of that number taught, which took so long. Before its `end`."""

    def restart(self) -> None:
        """The destination is back after an outage."""


class Adaptive(Fixed):
    """A limit of `most` at most that follows latency and refusals."""

    def __init__(self, most: int) -> None:
        super().__init__(min(_FIRST, most))
        self._most = most
        self._bears = float(self.limit)  # the limit is its whole part; below one it means a pace
        self._knee = float(most)  # below it the limit doubles, from it on it grows by one
        self._ceiling = math.inf  # what was too much the last time
        self._patience = self._waited = 0
        self._mean: float | None = None
        self._variance = 0.0
        self._resume = -math.inf
        self._next = -math.inf  # when to decide again
        self._first = 0  # the request that reached this limit, or the first one that left at it
        self._heed = 0  # the first request that is heeded: earlier ones belong to another limit
        # Since the last decision:
        self._answers = self._faults = self._delivered = 0
        self._seconds = 0.0
        self._throttled = self._reached = False

    @property
    def holds_back(self) -> bool:
        """See `Fixed`."""
        return self._bears < self._most

    def wait(self, now: float) -> float:
        """See `Fixed`."""
        return max(0.0, self._resume - now)

    def start(self, now: float) -> int:
        """See `Fixed`; notes whether the limit is reached."""
        number = super().start(now)
        if self.full and not self._reached:
            self._reached, self._first = True, number
        if self._bears < 1.0:
            self._rest(now)
        return number

    def learn(self, number: int, now: float, seconds: float, outcome: Outcome) -> None:
        """See `Fixed`; decides once per mean latency, and when what left at this limit is back."""
        if outcome is Outcome.THROTTLE:
            self._rest(now)
        if number < self._heed:
            return
        self._answers += 1
        self._faults += outcome is Outcome.FAULT
        self._throttled = self._throttled or outcome is Outcome.THROTTLE
        if outcome is Outcome.DELIVERED:
            self._seconds += seconds
            self._delivered += 1
        # While it doubles, the answer to what left at the full limit is all there is to wait for.
        due = now >= self._next or self._bears < self._knee
        if due and (number >= self._first or self._throttled):
            latency = self._seconds / self._delivered if self._delivered else None
            self._decide(latency)
            if latency is not None:
                self._remember(latency)
            self._next = now + min(self._mean or _UNKNOWN, _LONGEST)
            self._clear()

    def restart(self) -> None:
        """Begin low, and double up to where it was: everybody comes back at once."""
        self._knee = max(self._knee, self._bears)
        self._set(min(_FIRST, self._bears))

    def _decide(self, latency: float | None) -> None:
        self._waited += 1
        faulty = self._faults - 1 > _FAULTS * self._answers
        if self._throttled or faulty or self._is_late(latency):
            self._fall()
        elif self._reached and latency is not None:
            if self._bears < self._knee:  # nothing but lateness ends the doubling
                self._set(min(2 * self._bears, self._knee))
                self._heed = self._left + 1
            elif self._mean is None or latency <= self._mean * _SAME:
                self._grow()

    def _fall(self) -> None:
        again = self._bears >= self._ceiling
        self._patience = min(2 * self._patience, _MOST_PATIENCE) if again else _PATIENCE
        self._ceiling, self._waited = self._bears, 0
        # What was doubled last was far too much; later steps were small, and so is the way back.
        lower = self._bears * (0.5 if self._bears < self._knee else _DECREASE)
        self._knee = float(int(lower)) if lower >= 1.0 else max(lower, _LEAST)
        self._set(self._knee)
        self._heed = self._left + 1

    def _grow(self) -> None:
        if self._bears >= self._ceiling:  # it bears more now
            self._ceiling = math.inf
        higher = self._bears + 1.0 if self._bears >= 1.0 else min(self._bears / _DECREASE, 1.0)
        if higher < self._ceiling or self._waited >= self._patience:
            self._set(min(higher, self._most))

    def _set(self, bears: float) -> None:
        self._bears, self.limit = bears, max(1, int(bears))

    def _is_late(self, latency: float | None) -> bool:
        if latency is None or self._mean is None:
            return False
        usual = self._mean + _DEVIATIONS * math.sqrt(self._variance)
        return latency > max(usual, self._mean * _LATE, self._mean + _OURS)

    def _rest(self, now: float) -> None:
        """As long as every slot is busy with a request, divided by the slots."""
        rest = (self._mean or _UNKNOWN) / self._bears
        self._resume = max(self._resume, now + min(rest, _LONGEST))

    def _remember(self, latency: float) -> None:
        if self._mean is None:
            # As TCP starts (RFC 6298): of one measurement, half of it is the deviation.
            self._mean, self._variance = latency, (latency / 2) ** 2
            return
        change = latency - self._mean
        self._mean += _WEIGHT * change
        self._variance = (1 - _WEIGHT) * (self._variance + _WEIGHT * change * change)

    def _clear(self) -> None:
        self._first = self._left + 1
        self._answers = self._faults = self._delivered = 0
        self._seconds = 0.0
        self._throttled = False
        self._reached = self.full
