"""Streams to payloads, for one lane: frames one by one, decoded and encoded in worker threads.

Frames are few at a time, in bytes; a frame of unusual size is encoded in pieces, as each is asked
for. One that does not decode is read again a few times: it may have been damaged on its way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass

from pipeline.errors import BrokenFrame
from pipeline.model import Payloads, Reading, Span
from pipeline.ports import Encoder, Frame, Source
from pipeline.run.frames import FrameRoom

# Frames are about a megabyte, but may be a hundred: encoding takes a few times what it encodes.
_PIECE_BYTES = 8_000_000
# A frame that is broken so many times more is so at the source.
_MOST_BROKEN = 3


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a stream, encoded.

    nbytes: of the frame, as received; its share for a piece of one. read_seconds: waited for the
    frame; encode_seconds: decoding and encoding, in a thread.
    """

    payloads: Payloads
    nbytes: int
    read_seconds: float
    encode_seconds: float


class Encoding:
    """See the module. room: of the frames that are not encoded yet, in bytes."""

    def __init__(
        self, source: Source, reading: Reading, encoder: Encoder, threads: Executor, room: int
    ) -> None:
        self._source, self._reading, self._encoder = source, reading, encoder
        self._threads, self._room = threads, FrameRoom(room)

    async def stream(self, number: int, first: int) -> AsyncGenerator[Piece, None]:
        """A stream's rows from row `first` to its end; in order, none twice.

        Raises what ends the reading of it. To be closed when it is left early.
        """
        at, broken = first, 0
        while True:
            try:
                asked = time.perf_counter()
                frames = self._room.each(self._source.read(self._reading, number, at))
                async with aclosing(frames):
                    async for frame in frames:
                        waited = time.perf_counter() - asked
                        async with aclosing(self._encode(frame)) as pieces:
                            async for payloads, seconds in pieces:
                                nbytes = frame.nbytes * payloads.span.rows // frame.span.rows
                                yield Piece(payloads, nbytes, waited, seconds)
                                waited = 0.0
                        at, broken, asked = frame.span.end, 0, time.perf_counter()
            except BrokenFrame:  # before anything of it was encoded
                broken += 1
                if broken > _MOST_BROKEN:
                    raise
            else:
                return

    async def _encode(self, frame: Frame) -> AsyncGenerator[tuple[Payloads, float], None]:
        """Its payloads and the seconds they took; more than one for a frame of unusual size."""
        loop = asyncio.get_running_loop()
        pieces, rows = self._pieces(frame), 0
        while rows < frame.span.rows:
            payloads, seconds = await loop.run_in_executor(self._threads, next, pieces)
            rows += payloads.span.rows
            yield payloads, seconds

    def _pieces(self, frame: Frame) -> Iterator[tuple[Payloads, float]]:
        """In a worker thread: decode, then encode piece by piece, as each is asked for."""
        started = time.perf_counter()
        batch, stream, first = frame.record_batch(), frame.span.stream, frame.span.first
        if self._reading.columns:
            batch = batch.select(self._reading.columns)
        # By the bytes as received: to measure a decoded batch takes as long as some columns.
        step = max(1, batch.num_rows * _PIECE_BYTES // max(frame.nbytes, _PIECE_BYTES))
        for start in range(0, batch.num_rows, step):
            piece = batch.slice(start, step)
            span = Span(stream=stream, first=first + start, rows=piece.num_rows)
            payloads = self._encoder.encode(piece, span)
            yield payloads, time.perf_counter() - started
            started = time.perf_counter()
