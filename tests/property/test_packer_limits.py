"""The packer's promises, over frames of made-up sizes and over what the real encoder gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from arrow_strategies import cuts, examples, spans
from hypothesis import given
from hypothesis import strategies as st
from value_strategies import TEXT

from pipeline.destination.customerio import ENVELOPE
from pipeline.destination.file import File
from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import Rules
from pipeline.encode.packer import Packer
from pipeline.model import Batch, Call, DeadLetter, Envelope, Limits, Payloads, Reason, Span, Window
from pipeline.send.cut import refuse

LINES = File(name="file").envelope
ENVELOPES = st.sampled_from([ENVELOPE, LINES, Envelope(prefix=b"", separator=b",", suffix=b"")])
LARGEST = 30
# One frame: for each row the size of its payload, or None for an invalid one.
FRAME = st.lists(st.one_of(st.integers(1, LARGEST), st.none()), max_size=20)


def made_up(frame: Sequence[int | None], first: int, separator: bytes) -> Payloads:
    valid = [(row, size) for row, size in enumerate(frame) if size is not None]
    data = b"".join(b"%d" % (row % 10) * size + separator for row, size in valid)
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


def later(payloads: Payloads, junk: int) -> Payloads:
    """The same payloads at offsets that do not begin at 0."""
    data = b"x" * junk + bytes(payloads.data)
    return replace(payloads, data=memoryview(data), offsets=payloads.offsets + junk)


def pack(frames: Sequence[Payloads], limits: Limits, envelope: Envelope, first: int) -> list[Batch]:
    packer = Packer(limits, envelope, stream=1, first=first)
    batches: list[Batch] = []
    assert packer.waiting == 0
    for added, frame in enumerate(frames, start=1):
        batches += packer.add(frame)
        left = sum(map(len, frames[:added])) - sum(batch.rows for batch in batches)
        assert packer.waiting == min(left, len(frame))
    for last in packer.flush():
        # What waited longest is not what keeps all that it was read with in memory.
        for piece in last.slices:
            assert len(piece.payloads.data) == len(piece.view) + 1
            assert len(piece.payloads) == piece.rows
        batches.append(last)
    assert not list(packer.flush())  # nothing twice
    return batches


def check(
    batches: Sequence[Batch],
    limits: Limits,
    envelope: Envelope,
    payloads: dict[int, bytes],
    span: Span,
) -> None:
    """Every promise of the packer's header. payloads: of each valid row of the stream's span."""
    # The spans tile what was read.
    assert all(batch.span.stream == span.stream for batch in batches)
    assert [batch.span.first for batch in batches] == [
        span.first + sum(before.span.rows for before in batches[:at]) for at in range(len(batches))
    ]
    assert sum(batch.span.rows for batch in batches) == span.rows
    # The payloads come out whole, in order, and in the batch that settles them.
    sent = [
        [(dead.row, dead.payload) for dead in refuse(batch.slices, "", "")] for batch in batches
    ]
    assert [pair for pairs in sent for pair in pairs] == sorted(payloads.items())
    for batch, pairs in zip(batches, sent, strict=True):
        assert all(batch.span.first <= row < batch.span.end for row, _ in pairs)
        assert batch.rows == len(pairs)
        assert batch.nbytes == sum(len(text) + 1 for _, text in pairs)
    # What is sent is what the limits are about.
    full = [(batch, pairs) for batch, pairs in zip(batches, sent, strict=True) if pairs]
    bodies = [envelope.wrap([piece.view for piece in batch.slices]) for batch, _ in full]
    for (_, pairs), body in zip(full, bodies, strict=True):
        joined = envelope.separator.join(text for _, text in pairs)
        assert body == envelope.prefix + joined + envelope.suffix
        assert len(body) <= limits.batch_bytes
        assert len(pairs) <= limits.batch_rows
    # Full: the next payload would not have fitted.
    for at, body in enumerate(bodies[:-1]):
        _, following = full[at + 1][1][0]
        by_bytes = len(body) + len(envelope.separator) + len(following) > limits.batch_bytes
        assert by_bytes or len(full[at][1]) == limits.batch_rows


@pytest.mark.slow
@examples(500, least=300)
@given(
    frames=st.lists(FRAME, max_size=8),
    envelope=ENVELOPES,
    room=st.integers(0, 60),
    most_rows=st.integers(1, 12),
    first=st.integers(0, 1000),
    junk=st.integers(0, 3),
)
def test_batches_tile_the_stream_and_never_exceed_a_limit(
    *,
    frames: list[list[int | None]],
    envelope: Envelope,
    room: int,
    most_rows: int,
    first: int,
    junk: int,
) -> None:
    frame = len(envelope.prefix) + len(envelope.suffix)
    limits = Limits(payload_bytes=LARGEST, batch_bytes=frame + LARGEST + room, batch_rows=most_rows)
    given, payloads, at = [], {}, first
    for sizes in frames:
        given.append(later(made_up(sizes, at, envelope.separator), junk))
        for row, size in enumerate(sizes):
            if size is not None:
                payloads[at + row] = b"%d" % (row % 10) * size
        at += len(sizes)
    span = Span(stream=1, first=first, rows=at - first)
    check(pack(given, limits, envelope, first), limits, envelope, payloads, span)


@st.composite
def texts(draw: st.DrawFn) -> list[tuple[str | None, str]]:
    """(userId, a trait of many or few bytes to the character) of each row; some are invalid."""
    traits = st.one_of(
        TEXT, st.integers(0, 60).map(lambda n: "😀" * n), st.text("aü€", max_size=60)
    )
    users = st.sampled_from(["u", "ü", "", None])
    return draw(st.lists(st.tuples(users, traits), max_size=12))


@pytest.mark.slow
@examples(500, least=300)
@given(
    rows=texts(),
    envelope=ENVELOPES,
    room=st.integers(0, 300),
    most_rows=st.integers(1, 6),
    data=st.data(),
)
def test_what_the_encoder_gives_is_packed_to_the_byte(
    *,
    rows: list[tuple[str | None, str]],
    envelope: Envelope,
    room: int,
    most_rows: int,
    data: st.DataObject,
) -> None:
    most = data.draw(st.integers(120, 330), label="payload_bytes")
    frame = len(envelope.prefix) + len(envelope.suffix)
    limits = Limits(payload_bytes=most, batch_bytes=frame + most + room, batch_rows=most_rows)
    schema = pa.schema([("userId", pa.string()), ("x", pa.string())])
    batch = pa.RecordBatch.from_arrays(
        [pa.array([row[at] for row in rows], pa.string()) for at in (0, 1)], schema=schema
    )
    encoder = CallEncoder(
        sync="s",
        call=Call.IDENTIFY,
        window=Window(start=0, sequence=1),
        schema=schema,
        rules=Rules(),
        separator=envelope.separator,
        payload_bytes=most,
    )
    given = [
        encoder.encode(batch.slice(first, count), Span(stream=1, first=first, rows=count))
        for first, count in spans(data.draw(cuts(len(rows))))
    ]
    payloads = {}
    for part in given:
        assert all(
            len(letter.payload) > most
            for letter in part.invalid
            if letter.reason == Reason.PAYLOAD_TOO_LARGE
        )
        whole = bytes(part.data)
        for at in range(len(part)):
            payloads[part.row(at)] = whole[part.offsets[at] : part.offsets[at + 1] - 1]
    span = Span(stream=1, first=0, rows=len(rows))
    check(pack(given, limits, envelope, 0), limits, envelope, payloads, span)


@pytest.mark.parametrize("envelope", [ENVELOPE, LINES], ids=["customerio", "file"])
def test_a_batch_has_room_for_the_largest_payload(envelope: Envelope) -> None:
    frame = len(envelope.prefix) + len(envelope.suffix)
    limits = Limits(payload_bytes=LARGEST, batch_bytes=frame + LARGEST, batch_rows=9)
    largest = made_up([LARGEST, LARGEST], 0, envelope.separator)
    batches = pack([largest], limits, envelope, 0)
    bodies = [envelope.wrap([piece.view for piece in batch.slices]) for batch in batches]
    assert [len(body) for body in bodies] == [limits.batch_bytes] * 2
    with pytest.raises(ValueError, match=r"^a batch must have room for the largest payload$"):
        Packer(replace(limits, batch_bytes=limits.batch_bytes - 1), envelope, stream=1, first=0)


def test_rows_that_are_all_invalid_are_settled_without_a_request() -> None:
    limits = Limits(payload_bytes=LARGEST, batch_bytes=100, batch_rows=9)
    packer = Packer(limits, ENVELOPE, stream=1, first=5)
    (batch,) = packer.add(made_up([None, None], 5, b","))
    assert (batch.slices, batch.rows, batch.nbytes) == ((), 0, 0)
    assert batch.span == Span(stream=1, first=5, rows=2)
    # Beside payloads that wait, they wait too: their batch settles them.
    assert not list(packer.add(made_up([3], 7, b",")))
    assert not list(packer.add(made_up([None], 8, b",")))
    (batch,) = packer.flush()
    assert (batch.rows, batch.span) == (1, Span(stream=1, first=7, rows=2))
