"""Payloads of one stream, in order, to Batches as full as a destination allows. Pure.

A Batch never exceeds its limits by a byte, and only its stream's last one is under-filled by more
than one payload. No payload is copied: a Batch is slices of what the encoder joined. The Batches'
spans tile the stream, so that settling every Batch settles every row, invalid ones included.
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
        self._nbytes = self._rows = 0

    def add(self, payloads: Payloads) -> Iterator[Batch]:
        """Take the stream's next payloads; yield what is full.

        Payloads of invalid rows only may yield a Batch without rows, which is settled unsent.
        """
        offsets, count, at = payloads.offsets, len(payloads), 0
        while at < count:
            room = offsets[at] + self._most_bytes - self._nbytes
            fits = int(np.searchsorted(offsets, room, side="right")) - 1
            stop = min(fits, at + self._most_rows - self._rows, count)
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
