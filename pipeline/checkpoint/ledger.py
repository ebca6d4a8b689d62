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

    The spans of a stream tile it from its checkpoint on, without overlap.
    """

    def __init__(self, checkpoints: Mapping[int, int] = {}) -> None:
        self._streams = {stream: _Stream(rows) for stream, rows in checkpoints.items()}

    def settle(self, span: Span) -> None:
        """Note that every row of `span` is delivered or a dead letter. Amortised O(1).

        A span of no rows settles nothing. Raises PipelineError when rows are settled twice: at
        once when the span lies before the prefix or starts where another did, otherwise no
        later than when the gaps before it are filled. Until then the prefix, which only ever
        takes whole settled spans, stays right.
        """
        if span.first < 0 or span.rows < 0:
            raise PipelineError(f"Stream {span.stream}: {_rows(span)} can't be settled.")
        if not span.rows:
            return
        stream = self._streams.get(span.stream)
        if stream is None:
            stream = self._streams[span.stream] = _Stream(0)
        stream.settle(span)

    def checkpoints(self) -> dict[int, int]:
        """Stream -> contiguous settled rows from its start, of all streams known so far."""
        return {number: stream.prefix for number, stream in self._streams.items()}

    def pending(self, stream: int) -> int:
        """Rows of a stream that are settled but wait for rows before them."""
        known = self._streams.get(stream)
        return known.pending_rows if known else 0


class _Stream:
    """One stream: rows [0, prefix) are settled, and the spans of `pending`, by first row.

    Disjoint spans between `prefix` and `furthest` can't hold more rows than lie there. That
    one sum finds every overlap without keeping the spans in order.
    """

    __slots__ = ("furthest", "pending", "pending_rows", "prefix")

    def __init__(self, prefix: int) -> None:
        self.prefix = prefix
        self.furthest = prefix
        self.pending: dict[int, int] = {}
        self.pending_rows = 0

    def settle(self, span: Span) -> None:
        if span.first < self.prefix or span.first in self.pending:
            raise _settled_twice(span)
        self.furthest = max(self.furthest, span.end)
        if span.first != self.prefix:
            self.pending[span.first] = span.end
            self.pending_rows += span.rows
        else:
            self.prefix = span.end
            while (end := self.pending.pop(self.prefix, None)) is not None:
                self.pending_rows -= end - self.prefix
                self.prefix = end
        if self.prefix + self.pending_rows > self.furthest:
            raise _settled_twice(span)


def _settled_twice(span: Span) -> PipelineError:
    return PipelineError(
        f"Stream {span.stream}: rows were settled twice, found at {_rows(span)}. "
        "This is our own fault: please report it. Nothing past the last Checkpoint is skipped "
        "when you run again."
    )


def _rows(span: Span) -> str:
    return f"{span.rows} rows from row {span.first}"
