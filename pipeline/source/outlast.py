"""How long a destination will take, and whether a read session lasts as long.

A rate limit says how many rows or requests leave in a second, and a session dies at a known time:
whether the second comes first is told before the first row is read. Pure: no I/O, no clock. An
estimate of the least time: outages, retries and slow answers come on top.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.model import Reading

# A payload's JSON beside its values (keys, quotes, ids), where nothing is known of it: guesses on
# the high side, since spooling for nothing costs disk, and not spooling a second query.
_ROW_BYTES, _AROUND_A_ROW, _TEXT_PER_BYTE = 500, 150, 2
# What of a session's life may be planned with: the estimate is of the least time.
_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The most that one destination takes. None: no limit.

    batch_rows, batch_bytes: of one request; bytes before compression.
    """

    requests_per_second: float | None
    rows_per_second: float | None
    batch_rows: int
    batch_bytes: int

    def requests(self, rows: int, payload_bytes: int) -> int:
        """Requests for so many rows whose payloads have so many bytes in all."""
        return max(-(-rows // self.batch_rows), -(-payload_bytes // self.batch_bytes))

    def seconds(self, rows: int, payload_bytes: int) -> float:
        """The least time for so many rows; 0 without a limit."""
        by_rows = rows / self.rows_per_second if self.rows_per_second else 0.0
        requests = self.requests(rows, payload_bytes)
        by_requests = requests / self.requests_per_second if self.requests_per_second else 0.0
        return max(by_rows, by_requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """needs: seconds that the slowest destination takes at least. lasts: the session's seconds."""

    needs: float
    lasts: float

    @property
    def outlasts(self) -> bool:
        """Whether the destination is likely to take longer than the session lives."""
        return self.needs > self.lasts * _SHARE


def payload_bytes(rows: int, source_bytes: int | None) -> int:
    """A guess at the bytes of all payloads. source_bytes: of the rows at the source, if known."""
    if source_bytes is None:
        return rows * _ROW_BYTES
    return source_bytes * _TEXT_PER_BYTE + rows * _AROUND_A_ROW


def outlook(reading: Reading, paces: Iterable[Pace], now: float) -> Outlook | None:
    """Of all rows of a Reading; None where it never expires or its rows aren't known.

    now: Unix seconds.
    """
    if reading.expires is None or reading.rows is None:
        return None
    nbytes = payload_bytes(reading.rows, reading.estimated_bytes)
    needs = max((pace.seconds(reading.rows, nbytes) for pace in paces), default=0.0)
    return Outlook(needs=needs, lasts=max(0.0, reading.expires - now))
