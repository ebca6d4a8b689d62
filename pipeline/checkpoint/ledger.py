"""What is settled, per stream of one destination in one run.

Spans come in any order; a Checkpoint is only ever the contiguous settled prefix of a stream, so
that a resume may skip it. Pure: no I/O, no clock. It holds spans, never rows, and does not know
of stores, batches or what became of a row.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import PipelineError
from pipeline.model import Span


class Ledger:
    """The settled rows of every stream, for one destination.

    checkpoints: stream -> rows settled from the stream's start, as last committed; a stream
        that is not in it starts at 0.

    The spans of a stream tile it from its checkpoint on, without overlap. Memory is one entry for
    each gap: what is settled around a gap is joined, however many rows and spans it was.
    """

    def __init__(self, checkpoints: Mapping[int, int] = {}) -> None:
        self._streams = {stream: _Stream(rows) for stream, rows in checkpoints.items()}

    def settle(self, span: Span, dead: int = 0) -> None:
        """Note that every row of `span` is delivered or a dead letter, `dead` of them these. O(1).

        A span of no rows settles nothing. Raises PipelineError when rows are settled twice: at
        once when the span lies before the prefix, otherwise no later than when the gaps before
        it are filled. Until then the prefix, which only ever takes whole settled spans, stays
        right.
        """
        if span.first < 0 or span.rows < 0:
            raise PipelineError(f"Stream {span.stream}: {_rows(span)} can't be settled.")
        if not span.rows:
            return
        stream = self._streams.get(span.stream)
        if stream is None:
            stream = self._streams[span.stream] = _Stream(0)
        stream.settle(span, dead)

    def checkpoints(self) -> dict[int, int]:
        """Stream -> contiguous settled rows from its start, of all streams known so far."""
        return {number: stream.prefix for number, stream in self._streams.items()}

    def dead(self) -> int:
        """Dead letters below the checkpoints, without those of the checkpoints it began with."""
        return sum(stream.dead for stream in self._streams.values())

    def pending(self, stream: int) -> int:
        """Rows of a stream that are settled but wait for rows before them."""
        known = self._streams.get(stream)
        return known.pending_rows if known else 0


class _Stream:
    """One stream: rows [0, prefix) are settled, and those of `pending`: first -> (end, dead).

    Disjoint spans between `prefix` and `furthest` can't hold more rows than lie there. That
    one sum finds every overlap without keeping the spans in order.
    """

    __slots__ = ("dead", "ends", "furthest", "pending", "pending_rows", "prefix")

    def __init__(self, prefix: int) -> None:
        self.prefix = prefix
        self.furthest = prefix
        self.dead = 0
        self.pending: dict[int, tuple[int, int]] = {}
        self.ends: dict[int, int] = {}  # end -> first of the pending
        self.pending_rows = 0

    def settle(self, span: Span, dead: int) -> None:
        if span.first < self.prefix or span.first in self.pending:
            raise _settled_twice(span)
        self.furthest = max(self.furthest, span.end)
        first, end = span.first, span.end
        if first in self.ends:  # joined with what ends here
            first = self.ends.pop(first)
            dead += self.pending.pop(first)[1]
        if end in self.pending:  # and with what begins here
            end, more = self._take(end)
            dead += more
        self.pending[first], self.ends[end] = (end, dead), first
        self.pending_rows += span.rows
        if first == self.prefix:
            end, dead = self._take(first)
            self.pending_rows -= end - first
            self.prefix, self.dead = end, self.dead + dead
        if self.prefix + self.pending_rows > self.furthest:
            raise _settled_twice(span)

    def _take(self, first: int) -> tuple[int, int]:
        end, dead = self.pending.pop(first)
        self.ends.pop(end, None)  # gone already only where rows were settled twice
        return end, dead


def _settled_twice(span: Span) -> PipelineError:
    return PipelineError(
        f"Stream {span.stream}: rows were settled twice, found at {_rows(span)}. "
        "This is our own fault: please report it. Nothing past the last Checkpoint is skipped "
        "when you run again."
    )


def _rows(span: Span) -> str:
    return f"{span.rows} rows from row {span.first}"
