from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.encode.packer import Packer
from pipeline.model import Batch, DeadLetter, Envelope, Limits, Payloads, Span
from pipeline.send.cut import refuse

ENVELOPE = Envelope(prefix=b'{"batch":[', separator=b",", suffix=b"]}")
# One frame: for each row the size of its payload, or None for an invalid one.
FRAME = st.lists(st.one_of(st.integers(1, 30), st.none()), max_size=20)


def payloads(frame: list[int | None], first: int) -> Payloads:
    valid = [(row, size) for row, size in enumerate(frame) if size is not None]
    data = b"".join(b"%d" % (row % 10) * size + b"," for row, size in valid)
    letter = DeadLetter(stream=1, row=0, reason="r", message="m", payload=b"")
    return Payloads(
        data=memoryview(data),
        offsets=np.cumsum([0, *(size + 1 for _, size in valid)]).astype(np.int64),
        span=Span(stream=1, first=first, rows=len(frame)),
        rows=None
        if len(valid) == len(frame)
        else np.array([first + row for row, _ in valid], dtype=np.int64),
        invalid=(letter,) * (len(frame) - len(valid)),
    )


@given(
    frames=st.lists(FRAME, max_size=8),
    room=st.integers(0, 60),
    most_rows=st.integers(1, 12),
    first=st.integers(0, 1000),
)
def test_batches_tile_the_stream_and_never_exceed_a_limit(
    frames: list[list[int | None]], room: int, most_rows: int, first: int
) -> None:
    limits = Limits(payload_bytes=30, batch_bytes=12 + 31 + room, batch_rows=most_rows)
    packer = Packer(limits, ENVELOPE, stream=1, first=first)
    batches: list[Batch] = []
    at = first
    for frame in frames:
        batches += packer.add(payloads(frame, at))
        at += len(frame)
    batches += packer.flush()

    # The spans tile what was read, and the payloads come out whole and in order.
    assert [batch.span.first for batch in batches] == [
        first + sum(b.span.rows for b in batches[:index]) for index in range(len(batches))
    ]
    assert sum(batch.span.rows for batch in batches) == sum(map(len, frames))
    sent = [
        (letter.row, letter.payload) for batch in batches for letter in refuse(batch.slices, "", "")
    ]
    flat = [(first + row, size) for row, size in enumerate(s for frame in frames for s in frame)]
    assert [(row, len(text)) for row, text in sent] == [
        (row, size) for row, size in flat if size is not None
    ]

    bodies = [ENVELOPE.wrap([piece.view for piece in batch.slices]) for batch in batches]
    for batch, body in zip(batches, bodies, strict=True):
        assert batch.rows <= most_rows
        if batch.slices:
            assert len(body) <= limits.batch_bytes
            rows = [row for row, _ in sent if batch.span.first <= row < batch.span.end]
            assert len(rows) == batch.rows
    # Not the last, and not full by count: the next payload would not have fitted.
    filled = [pair for pair in zip(batches, bodies, strict=True) if pair[0].slices]
    sizes = dict(flat)
    for batch, body in filled[:-1]:
        if batch.rows < most_rows:
            following = next(row for row, _ in sent if row >= batch.span.end)
            size = sizes[following]
            assert size is not None
            assert len(body) + 1 + size > limits.batch_bytes
