"""How long a broken read stream is tried again, and when it is given up. Pure: no clock, no I/O.

Everything is counted since the last message that came: a stream that moves, however slowly, is
never given up. An outage may last as long at BigQuery as at a destination. Source of what passes:
Google's own clients, and what their users met. Times are seconds of any origin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NoReturn

import grpc

from pipeline.errors import ReadingExpired, SourceError
from pipeline.source.faults import from_status

DEADLINE = 900.0
"""How long an outage may last, in seconds, where nothing else is said."""

_FIRST_WAIT, _LAST_WAIT = 0.2, 30.0
# Each time that nothing came, twice as long is waited, so many times: a message of 128 MB over a
# slow line takes minutes, and gRPC shows nothing of it before it is whole. Keepalive notices a dead
# peer sooner.
_DOUBLINGS = 3
_MOST_BROKEN = 3
_MOST_REFRESHES = 1
_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
# INTERNAL passes only where it speaks of the connection. Source: Google's own clients.
_PASSING_INTERNAL = (
    "rst_stream",
    "rst stream",
    "eos on data frame",
    "http/2 error code: internal_error",
    "connection closed with unknown cause",
)


class Patience:
    """Of one stream. Its methods say how many seconds to wait before the next try, or raise.

    deadline: seconds from the first failure without a message in between.
    """

    def __init__(
        self, where: str, uniform: Callable[[float, float], float], *, deadline: float = DEADLINE
    ) -> None:
        self._where, self._uniform, self._deadline = where, uniform, deadline
        self.progressed()

    def progressed(self) -> None:
        """A message came: all is well again."""
        self._futile = self._idle = self._broken = self._refreshes = 0
        self._since = math.inf

    def silence(self, first: float, now: float) -> float:
        """How long to wait for a message, in seconds. first: how long at first, and at least."""
        left = self._deadline - self.lasts(now)
        return max(first, min(first * 2.0 ** min(self._idle, _DOUBLINGS), left))

    def lasts(self, now: float) -> float:
        """Seconds since the first failure without a message in between; 0 while all is well."""
        return max(0.0, now - self._since)

    def failed(
        self, code: grpc.StatusCode, details: str, now: float, retry_after: float | None = None
    ) -> float:
        """The call ended with this status. retry_after: seconds, when the service said so."""
        if code is grpc.StatusCode.NOT_FOUND or (
            code is grpc.StatusCode.FAILED_PRECONDITION and "expired" in details.lower()
        ):
            raise ReadingExpired(
                f"{self._where}: the read session is gone: {details}. It lives 6 hours; what takes "
                "longer to send can be kept on local disk (`spool.dir`)."
            )
        if code is grpc.StatusCode.UNAUTHENTICATED and self._refreshes < _MOST_REFRESHES:
            self._refreshes += 1
            return 0.0
        passing = code in _PASSING or (
            code is grpc.StatusCode.INTERNAL
            and any(sign in details.lower() for sign in _PASSING_INTERNAL)
        )
        if not passing:
            self._give_up(code, details)
        wait = self._backoff(now)
        if retry_after is not None:
            # A little later than asked, so that not all streams come back at once.
            wait = retry_after + self._uniform(0.0, max(_FIRST_WAIT, retry_after / 10))
        # Who is asked to come back after the deadline gives up at once, so that its slot is free.
        if self.lasts(now) + (wait if retry_after is not None else 0.0) >= self._deadline:
            self._give_up(code, f"{details.rstrip('.')}, for {self.lasts(now):,.0f} s")
        return wait

    def idle(self, seconds: float, now: float) -> float:
        """No message came for so long."""
        self._idle += 1
        self._since = min(self._since, now - seconds)
        if self.lasts(now) >= self._deadline:
            silent = f"no message for {self.lasts(now):,.0f} s"
            self._give_up(grpc.StatusCode.DEADLINE_EXCEEDED, silent)
        return self._backoff(now)

    def broken(self, what: str, now: float) -> float:
        """A message came that can't be read."""
        self._broken += 1
        if self._broken > _MOST_BROKEN:
            raise SourceError(
                f"{self._where}: a message of the read stream is broken, each time it is asked "
                f"for ({what}). Nothing of it was sent. Run again; if it stays, report it to "
                "Google."
            )
        return self._backoff(now)

    def _backoff(self, now: float) -> float:
        """Full jitter."""
        self._since = min(self._since, now)
        self._futile += 1
        return self._uniform(0.0, min(_LAST_WAIT, _FIRST_WAIT * 2.0 ** min(self._futile, 30)))

    def _give_up(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise from_status(self._where, code, details) from None
