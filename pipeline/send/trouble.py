"""What to do with one Batch that fails while the others get through. Pure and clock-free.

A row may be what makes a destination fail (a 500 where there should be a 400). Retrying its Batch
for ever helps nobody: after some failures it is cut in halves, as a refused one is, so that its
neighbours arrive. A single row is never given up for it, since a 5xx refuses nothing: it is left
for last, and if it fails on until the deadline, it ends the run.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

# Failures in a row before a Batch is under suspicion, and of its parts after that.
_PATIENCE, _UNDER_SUSPICION = 8, 3
# The others get through when three of four do. Where half of all requests fail by chance, eight
# in a row do once in 256 times, and cutting would only make more requests.
_OTHERS = 3
# Failures in a row before one request may end the run, and of what has been cut out before.
_ATTEMPTS, _ATTEMPTS_ALONE = 20, 8


@dataclass(slots=True)
class Tally:
    """All requests of a destination by their end; throttles count as neither."""

    answered: int = 0
    failed: int = 0


class Trouble:
    """The failures of one Batch, part by part, beside those of the others.

    alone: it may be that nothing else can be sent before it. Then that nobody else gets through
    says nothing, and it is cut all the same.
    """

    def __init__(self, tally: Tally, *, alone: bool = False) -> None:
        self._tally, self._alone = tally, alone
        self._answered, self._failed = tally.answered, tally.failed
        self._own = self._failures = 0
        self._suspected = False
        self._since = math.inf

    def apart(self) -> Trouble:
        """Of a part that goes its own way from here on."""
        return copy(self)

    def begin(self) -> None:
        """The next part of it is tried."""
        self._failures = 0
        if not self._suspected:
            self._since = math.inf

    def failed(self, now: float) -> None:
        """It failed again; the tally knows."""
        self._own += 1
        self._failures += 1
        self._since = min(self._since, now)

    def stands_out(self) -> bool:
        """Whether it fails where others get through: then one of its rows may be why."""
        answered = self._tally.answered - self._answered
        failed = self._tally.failed - self._failed - self._own
        patience = _UNDER_SUSPICION if self._suspected else _PATIENCE
        least = 0 if self._alone else 1
        if self._failures < patience or answered < max(least, _OTHERS * failed):
            return False
        self._suspected = True
        return True

    def is_over(self, now: float, deadline: float) -> bool:
        """Whether it has failed for `deadline` seconds, whatever became of the others.

        Of a Batch that was cut, they count from its own first failure.
        """
        attempts = _ATTEMPTS_ALONE if self._suspected else _ATTEMPTS
        return self._failures >= attempts and now - self._since >= deadline
