"""One spooled file: messages of one stream as they came, an index, and a checksum. Blocking.

    schema message | RecordBatch messages | end of stream        an Arrow IPC stream
    per message: offset, bytes, rows                             little-endian uint64
    stream, first row, messages, magic | xxh3-128 of all before

So any Arrow library reads the file as it is, and we find each message without reading the others.
Knows no directory and no source.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import accumulate

import pyarrow as pa
import xxhash

from pipeline.errors import BrokenFrame
from pipeline.model import Span
from pipeline.source.frame import decode

# Arrow's columnar format: a continuation marker and a length of 0 end a stream.
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_MAGIC = b"retlspl1"
_ENTRY, _TAIL = struct.Struct("<QQQ"), struct.Struct("<QQQ8s")
_DIGEST = 16


Message = tuple[Span, bytes | memoryview]
"""The rows of a message, and the message: a RecordBatch, IPC-encapsulated."""


class SpooledFrame:
    """A message of a file: the rows from `first` on of the `span` it holds.

    message: a view of the file's bytes, which it keeps in memory. broken: called, in the thread
    that decodes, when that can't be done.
    """

    __slots__ = ("_broken", "_held", "_message", "_schema", "_where", "nbytes", "span")

    def __init__(
        self,
        message: bytes | memoryview,
        span: Span,
        first: int,
        *,
        schema: pa.Schema,
        where: str,
        broken: Callable[[], None],
    ) -> None:
        self._message, self._schema, self._where = message, schema, where
        self._held, self._broken = span.rows, broken
        first = max(first, span.first)
        self.span = Span(stream=span.stream, first=first, rows=span.end - first)
        self.nbytes = len(message)

    def record_batch(self) -> pa.RecordBatch:
        """See `pipeline.ports.Frame`. The file was whole: what is broken came so."""
        try:
            batch = decode(self._message, self._schema, self._held, self._where)
        except BrokenFrame:
            self._broken()
            raise
        return batch.slice(self._held - self.span.rows)


def size(schema: bytes, messages: Sequence[Message]) -> int:
    """Bytes of the file that `pieces` makes."""
    fixed = len(schema) + len(_END_OF_STREAM) + _TAIL.size + _DIGEST
    return fixed + sum(len(message) + _ENTRY.size for _, message in messages)


def pieces(schema: bytes, messages: Sequence[Message]) -> list[bytes | memoryview]:
    """A file of messages of one stream, each where the one before ends; to be joined."""
    starts = accumulate((len(message) for _, message in messages), initial=len(schema))
    index = b"".join(
        _ENTRY.pack(start, len(message), span.rows)
        for start, (span, message) in zip(starts, messages, strict=False)
    )
    span = messages[0][0]
    tail = _TAIL.pack(span.stream, span.first, len(messages), _MAGIC)
    parts = [schema, *(message for _, message in messages), _END_OF_STREAM, index, tail]
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part)
    return [*parts, digest.digest()]


def messages_of(data: bytes, span: Span) -> list[Message] | None:
    """The messages of a file that was written with the rows of `span`; None when it is not it."""
    body = memoryview(data)[:-_DIGEST]
    if len(body) < _TAIL.size or xxhash.xxh3_128_digest(body) != data[-_DIGEST:]:
        return None
    stream, first, count, magic = _TAIL.unpack(body[-_TAIL.size :])
    if (stream, first, magic) != (span.stream, span.first, _MAGIC):
        return None  # a file under another's name
    found: list[Message] = []
    for offset, nbytes, rows in _ENTRY.iter_unpack(
        body[-_TAIL.size - _ENTRY.size * count : -_TAIL.size]
    ):
        found.append((Span(stream=stream, first=first, rows=rows), body[offset : offset + nbytes]))
        first += rows
    return found if first == span.end else None
