"""What arrived: counts in memory, the calls themselves on disk, one per line.

Memory stays flat whatever arrives; only with `unique` it grows by some 100 bytes a call, for
the digests of message ids. Not thread-safe: it belongs to the event loop, but for `find`.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import orjson

from pipeline.errors import ConfigError

_KEPT_DROPS = 50
_WRITE_BUFFER = 1 << 20


class Record:
    """Counts and payloads since the start or the last reset.

    path: NDJSON of the accepted calls, begun anew; None: counts only. Raises ConfigError when
        it can't be written.
    unique: tell new message ids from repeated ones.
    """

    def __init__(self, path: Path | None = None, *, unique: bool = False) -> None:
        self.path = path
        self._unique = unique
        self._file: IO[bytes] | None = None
        if path is not None:
            try:
                self._file = path.open("wb", buffering=_WRITE_BUFFER)
            except OSError as error:
                raise ConfigError(
                    f"local Customer.io: can't write {path}: {error.strerror}. "
                    "Name a file in a directory that exists and may be written."
                ) from None
        self._clear()

    def _clear(self) -> None:
        self.requests = 0
        self.wire_bytes = 0
        self.body_bytes = 0
        self.in_flight = 0
        self.in_flight_peak = 0
        self.outcomes: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._drops: deque[dict[str, Any]] = deque(maxlen=_KEPT_DROPS)
        self._digests: set[bytes] = set()
        self._with_id = 0

    def begin(self) -> None:
        """A request came in."""
        self.requests += 1
        self.in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)

    def end(self, outcome: str) -> None:
        """It was answered; outcome: the status, or `reset`."""
        self.in_flight -= 1
        self.outcomes[outcome] += 1

    def accept(self, lines: Sequence[bytes], items: Sequence[Any]) -> None:
        """Calls that would go through. Raises OSError when they can't be written."""
        if not items:
            return
        if self._file is not None:
            self._file.write(b"\n".join(lines) + b"\n")
        self._accepted.update(map(itemgetter("type"), items))
        if self._unique:
            ids = [item["messageId"] for item in items if item.get("messageId")]
            self._with_id += len(ids)
            self._digests.update(_digest(text) for text in ids)

    def drop(self, reason: str, *, index: int | None, nbytes: int) -> None:
        """A call (or, without index, a whole request) that was answered 200 and is lost."""
        self._dropped[reason] += 1
        self._drops.append({"reason": reason, "index": index, "bytes": nbytes})

    def stats(self) -> dict[str, Any]:
        """JSON-ready. `dropped` counts by reason; `drops` are the latest of them."""
        unique = len(self._digests)
        return {
            "requests": self.requests,
            "wire_bytes": self.wire_bytes,
            "body_bytes": self.body_bytes,
            "in_flight": self.in_flight,
            "in_flight_peak": self.in_flight_peak,
            "outcomes": dict(self.outcomes),
            "accepted": self._accepted.total(),
            "calls": dict(self._accepted),
            "dropped": dict(self._dropped),
            "drops": list(self._drops),
            "unique_message_ids": unique if self._unique else None,
            "duplicates": self._with_id - unique if self._unique else None,
        }

    def reset(self) -> None:
        """Forget everything, the file's content too; requests under way stay under way."""
        under_way = self.in_flight
        self._clear()
        self.in_flight = self.in_flight_peak = under_way
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()

    def flush(self) -> None:
        """Let readers of the file see all of it."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None


def find(path: Path, *, call: str | None, user: str | None, limit: int) -> list[bytes]:
    """The first `limit` recorded calls of this type and userId, as they were sent. Blocking."""
    found: list[bytes] = []
    with path.open("rb") as file:
        for line in file:
            if len(found) >= limit:
                break
            if call is not None or user is not None:
                item = orjson.loads(line)
                if call is not None and item["type"] != call:
                    continue
                if user is not None and item.get("userId") != user:
                    continue
            found.append(line.rstrip(b"\n"))
    return found


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
