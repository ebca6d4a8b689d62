"""Read sessions: a table's serialized messages, divided into streams, and how long they live.

A stream is a run of whole messages, so its rows are the same on every read.
Everything here belongs to one thread, the server's event loop.
Knows neither gRPC nor SQL: refusals carry a status by name.
"""

from __future__ import annotations

import secrets
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

from pipeline.local.bigquery.messages import Messages

SESSION_SECONDS = 6 * 3600.0  # the service's: a session dies six hours after its creation
MAX_STREAMS = 1_000  # the service's limit
STREAM_ROWS = 100_000  # rows per stream when the client leaves the number to us ...
CHOSEN_STREAMS = 10  # ... and the most streams chosen so
KEEP_SESSIONS = 100
KEEP_BYTES = 8 * 2**30  # of snapshots on disk; the oldest sessions end early beyond it
REMEMBERED = 10_000  # sessions whose end is still told apart from their never having been
WEIGHTS = (4, 6, 5)  # streams of uneven size, as the service's are


class ReadRefusal(Exception):
    """A read request can't be served. code: the name of a gRPC status."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Stream:
    """Messages `first` to `stop - 1` of a session."""

    name: str
    first: int
    stop: int


@dataclass(slots=True)
class Session:
    """What CreateReadSession made, of `table`. expires: Unix seconds."""

    name: str
    table: str
    messages: Messages
    codec: str | None
    expires: float
    streams: tuple[Stream, ...]
    closed: bool = field(default=False)

    @property
    def rows(self) -> int:
        """Rows of all streams together."""
        return self.messages.starts[-1]

    def stream_rows(self, stream: Stream) -> int:
        """Rows of one stream."""
        return self.messages.starts[stream.stop] - self.messages.starts[stream.first]

    def seek(self, stream: Stream, offset: int) -> tuple[int, int]:
        """Where row `offset` of the stream is: number of the message, row within it.

        At the row count: (stream.stop, 0). Raises ReadRefusal beyond it.
        """
        rows = self.stream_rows(stream)
        if offset < 0:
            raise ReadRefusal("INVALID_ARGUMENT", f"offset {offset} is negative")
        if offset > rows:
            raise ReadRefusal(
                "FAILED_PRECONDITION",
                f"there was an error operating on '{stream.name}': "
                f"offset {offset} has not been allocated yet",
            )
        if offset == rows:
            return stream.stop, 0
        row = self.messages.starts[stream.first] + offset
        index = bisect_right(self.messages.starts, row) - 1
        return index, row - self.messages.starts[index]

    def close(self) -> None:
        """Give up the snapshot; what was read of it stays read."""
        self.closed = True
        self.messages.close()


def stream_count(rows: int, messages: int, *, most: int, least: int) -> int:
    """How many streams a session gets. most: 0 leaves it to us; least: a wish, kept if possible.

    Never more than there are messages, so none for an empty table.
    """
    if most < 0 or least < 0:
        raise ReadRefusal("INVALID_ARGUMENT", "stream counts must not be negative")
    if most and least > most:
        raise ReadRefusal(
            "INVALID_ARGUMENT",
            f"max_stream_count ({most}) must be greater than or equal to "
            f"preferred_min_stream_count ({least})",
        )
    chosen = max(least, min(CHOSEN_STREAMS, -(-rows // STREAM_ROWS)))
    return min(most or chosen, messages, MAX_STREAMS)


def divide(messages: int, streams: int) -> list[tuple[int, int]]:
    """Runs (first, stop) of messages, at least one each, of uneven length."""
    weights = [WEIGHTS[index % len(WEIGHTS)] for index in range(streams)]
    spare, total, bounds, weight = messages - streams, sum(weights), [0], 0
    for index in range(streams):
        weight += weights[index]
        bounds.append(index + 1 + spare * weight // total)
    return list(pairwise(bounds))


def divide_lopsided(messages: int, streams: int) -> list[tuple[int, int]]:
    """Runs of one message each, but for one that has all the others."""
    huge = streams // 2
    bounds = [index if index <= huge else messages - streams + index for index in range(streams)]
    return list(pairwise([*bounds, messages])) if streams else []


class Sessions:
    """The sessions of one server. Bounded: the oldest end early when there are too many."""

    def __init__(
        self,
        *,
        seconds: float = SESSION_SECONDS,
        location: str = "us",
        keep: int = KEEP_SESSIONS,
        keep_bytes: int = KEEP_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._seconds = seconds
        self._location = location
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._now = now
        self._sessions: dict[str, Session] = {}
        self._streams: dict[str, tuple[Session, Stream]] = {}

    def add(
        self,
        project: str,
        messages: Messages,
        *,
        codec: str | None,
        streams: int,
        table: str = "",
        lopsided: bool = False,
    ) -> Session:
        """A new session of `project` with that many streams over all the messages.

        lopsided: one stream has nearly all of them.
        """
        share = divide_lopsided if lopsided else divide
        name = f"projects/{project}/locations/{self._location}/sessions/{_token()}"
        session = Session(
            name=name,
            table=table,
            messages=messages,
            codec=codec,
            expires=self._now() + self._seconds,
            streams=tuple(
                Stream(f"{name}/streams/{_token()}", first, stop)
                for first, stop in share(len(messages.starts) - 1, streams)
            ),
        )
        self._sessions[name] = session
        for stream in session.streams:
            self._streams[stream.name] = (session, stream)
        self._evict()
        return session

    def find(self, name: str) -> tuple[Session, Stream]:
        """The stream of that name and its session. Raises ReadRefusal."""
        found = self._streams.get(name)
        if found is None:
            raise ReadRefusal("NOT_FOUND", f"Not found: stream '{name}'")
        self.check(*found)
        return found

    def check(self, session: Session, stream: Stream) -> None:
        """Raise ReadRefusal when the session's time is over."""
        if self._now() >= session.expires and not session.closed:
            session.close()
        if session.closed:
            at = datetime.fromtimestamp(int(min(session.expires, self._now())), UTC).isoformat()
            raise ReadRefusal(
                "FAILED_PRECONDITION",
                f"there was an error operating on '{stream.name}': session expired at {at}",
            )

    def split(self, name: str, fraction: float) -> tuple[Stream, Stream] | None:
        """Two streams with the first part and the rest of one; None: too small to be split.

        The original stream stays readable. fraction: in (0, 1), of the stream's messages;
        raises ReadRefusal outside of it.
        """
        session, stream = self.find(name)
        if not 0 < fraction < 1:
            raise ReadRefusal("INVALID_ARGUMENT", f"fraction {fraction} is not within (0, 1)")
        size = stream.stop - stream.first
        if size < 2:
            return None
        at = stream.first + min(size - 1, max(1, round(size * fraction)))
        primary = Stream(f"{session.name}/streams/{_token()}", stream.first, at)
        remainder = Stream(f"{session.name}/streams/{_token()}", at, stream.stop)
        for part in (primary, remainder):
            self._streams[part.name] = (session, part)
        return primary, remainder

    def close(self) -> None:
        """End all sessions."""
        for session in self._sessions.values():
            session.close()

    def _evict(self) -> None:
        live = [session for session in self._sessions.values() if not session.closed]
        stored = sum(session.messages.stored_bytes for session in live)
        for index, session in enumerate(live[:-1]):  # oldest first, never the one just made
            expired = self._now() >= session.expires
            if expired or len(live) - index > self._keep or stored > self._keep_bytes:
                stored -= session.messages.stored_bytes
                session.close()
        while len(self._sessions) > REMEMBERED:
            gone = self._sessions.pop(next(iter(self._sessions)))
            gone.close()
            self._streams = {n: found for n, found in self._streams.items() if found[0] is not gone}


def _token() -> str:
    return secrets.token_urlsafe(18)
