"""How long a broken read stream is tried again, and when it is given up. Pure: no clock, no I/O.

Everything is counted since the last message that came: a stream that moves, however slowly, is
never given up. Source of what passes: Google's own clients, and what their users met.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import grpc

from pipeline.errors import ReadingExpired, SourceError
from pipeline.source.faults import from_status

_FIRST_WAIT, _LAST_WAIT = 0.2, 20.0
_MOST_FUTILE = 8
# A service that says when to come back is believed for so long in all, in seconds.
_MOST_ASKED = 900.0
# Each time that nothing came, twice as long is waited: a message of 128 MB over a slow line takes
# minutes, and gRPC shows nothing of it before it is whole. Keepalive notices a dead peer sooner.
_MOST_IDLE = 4
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
    """Of one stream. Its methods say how many seconds to wait before the next try, or raise."""

    def __init__(self, where: str, uniform: Callable[[float, float], float]) -> None:
        self._where, self._uniform = where, uniform
        self.progressed()

    def progressed(self) -> None:
        """A message came: all is well again."""
        self._futile = self._idle = self._broken = self._refreshes = 0
        self._asked = 0.0

    @property
    def stretch(self) -> int:
        """By how much longer than at first to wait for a message."""
        return int(2**self._idle)

    def failed(
        self, code: grpc.StatusCode, details: str, retry_after: float | None = None
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
        if retry_after is not None:
            # Asked to come back: that is no fault of the connection, and has a patience of its own.
            # A little later than asked, so that not all streams come back at once.
            wait = retry_after + self._uniform(0.0, max(_FIRST_WAIT, retry_after / 10))
            self._asked += wait
            if self._asked > _MOST_ASKED:
                self._give_up(code, details)
            return wait
        self._futile += 1
        if self._futile > _MOST_FUTILE:
            self._give_up(code, details)
        return self._backoff()

    def idle(self, seconds: float) -> float:
        """No message came for so long."""
        self._idle += 1
        if self._idle >= _MOST_IDLE:
            self._give_up(grpc.StatusCode.DEADLINE_EXCEEDED, f"no message for {seconds:g} s")
        self._futile += 1
        return self._backoff()

    def broken(self, what: str) -> float:
        """A message came that can't be read."""
        self._broken += 1
        self._futile += 1
        if self._broken > _MOST_BROKEN:
            raise SourceError(
                f"{self._where}: a message of the read stream is broken, each time it is asked "
                f"for ({what}). Nothing of it was sent. Run again; if it stays, report it to "
                "Google."
            )
        return self._backoff()

    def _backoff(self) -> float:
        """Full jitter."""
        return self._uniform(0.0, min(_LAST_WAIT, _FIRST_WAIT * 2.0 ** min(self._futile, 30)))

    def _give_up(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise from_status(self._where, code, details) from None
