"""Payloads of one stream, in order, to Batches as full as a destination allows. Pure.

A Batch never exceeds its limits by a byte, and only its stream's last one is under-filled by more
than one payload. A Batch is slices of what the encoder joined; only what does not fill a Batch yet
is copied, so that it does not keep all of its neighbours in memory. The Batches' spans tile the
stream, so that settling every Batch settles every row, invalid ones included.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.model import Batch, Envelope, Limits, Payloads, Slice, Span


class Packer:
    """Packs one stream, whose next row is `first`."""

    def __init__(self, limits: Limits, envelope: Envelope, *, stream: int, first: int) -> None:
        # The last payload's separator is not sent: its byte is free.
        frame = len(envelope.prefix) + len(envelope.suffix) - len(envelope.separator)
        self._most_bytes = limits.batch_bytes - frame
        self._most_rows = limits.batch_rows
        if limits.payload_bytes + len(envelope.separator) > self._most_bytes:
            raise ValueError("a batch must have room for the largest payload")
        self._stream = stream
        self._start = self._end = first
        self._slices: list[Slice] = []
        self._nbytes = self._rows = self._tail = 0

    def add(self, payloads: Payloads) -> Iterator[Batch]:
        """Take the stream's next payloads; yield what is full.

        Payloads of invalid rows only may yield a Batch without rows, which is settled unsent.
        """
        offsets, count, at = payloads.offsets, len(payloads), 0
        while at < count:
            room = offsets[at] + self._most_bytes - self._nbytes
            fits = int(np.searchsorted(offsets, room, side="right")) - 1
            stop = min(fits, at + self._most_rows - self._rows)
            if stop > at:
                self._slices.append(Slice(payloads, at, stop))
                self._nbytes += int(offsets[stop] - offsets[at])
                self._rows += stop - at
            if stop < count:
                self._end = payloads.row(stop)
                yield self._take()
            at = stop
        self._end = payloads.span.end
        if not self._slices:
            yield self._take()
        self._tail = 0
        if self._slices and self._slices[-1].payloads is payloads:
            self._tail = self._slices[-1].rows
            self._slices[-1] = _detached(self._slices[-1])

    @property
    def waiting(self) -> int:
        """Rows of the payloads added last that do not fill a Batch yet."""
        return self._tail

    def flush(self) -> Iterator[Batch]:
        """The rest, at the end of the stream."""
        if self._end > self._start:
            yield self._take()

    def _take(self) -> Batch:
        span = Span(stream=self._stream, first=self._start, rows=self._end - self._start)
        batch = Batch(slices=tuple(self._slices), span=span, nbytes=self._nbytes)
        self._slices, self._nbytes, self._rows = [], 0, 0
        self._start = self._end
        return batch


def _detached(piece: Slice) -> Slice:
    """The same payloads in memory of their own."""
    whole, start, stop = piece.payloads, piece.start, piece.stop
    offsets = whole.offsets[start : stop + 1]
    rows = (
        np.arange(start, stop) + whole.span.first if whole.rows is None else whole.rows[start:stop]
    )
    own = Payloads(
        data=memoryview(bytes(whole.data[offsets[0] : offsets[-1]])),
        offsets=offsets - offsets[0],
        span=whole.span,
        rows=rows.copy(),
        users=None if whole.users is None else whole.users[start:stop].copy(),
    )
    return Slice(own, 0, stop - start)
