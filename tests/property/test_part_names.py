"""A run that goes on writes the same files: names and content depend on the payloads alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.destination.file import File
from pipeline.encode.packer import Packer
from pipeline.model import Batch, Limits, Payloads, Span
from pipeline.send.part_format import ndjson

LIMITS = Limits(payload_bytes=40, batch_bytes=100, batch_rows=4)
ENVELOPE = File(name="x", limits=LIMITS).envelope
# A row is the size of its payload, or invalid (None).
ROWS = st.lists(st.one_of(st.none(), st.integers(6, 40)), min_size=1, max_size=60)
CUTS = st.lists(st.integers(1, 9), min_size=1, max_size=60)


def framed(rows: Sequence[int | None], first: int, sizes: Sequence[int]) -> Iterator[Payloads]:
    """Rows from `first` on, as they come in frames of these sizes, again and again."""
    at, turn = first, 0
    while at < len(rows):
        stop = min(len(rows), at + sizes[turn % len(sizes)])
        valid = [row for row in range(at, stop) if rows[row] is not None]
        texts = [f"{row:05}".ljust(rows[row] or 0, "x").encode() + b"\n" for row in valid]
        yield Payloads(
            data=memoryview(b"".join(texts)),
            offsets=np.cumsum([0, *map(len, texts)]).astype(np.int64),
            span=Span(stream=0, first=at, rows=stop - at),
            rows=np.array(valid, dtype=np.int64),
        )
        at, turn = stop, turn + 1


def batches(rows: Sequence[int | None], first: int, sizes: Sequence[int]) -> list[Batch]:
    packer = Packer(LIMITS, ENVELOPE, stream=0, first=first)
    found = [one for payloads in framed(rows, first, sizes) for one in packer.add(payloads)]
    return [*found, *packer.flush()]


def files(found: Sequence[Batch]) -> dict[int, bytes]:
    """By the number that names a file; see part_files.py."""
    return {
        one.slices[0].payloads.row(one.slices[0].start): ndjson(one.slices)
        for one in found
        if one.slices
    }


@given(rows=ROWS, before=CUTS, after=CUTS, data=st.data())
def test_a_run_that_goes_on_writes_the_same_files(
    rows: list[int | None], before: list[int], after: list[int], data: st.DataObject
) -> None:
    first = batches(rows, 0, before)
    settled = data.draw(st.integers(0, len(first)))
    checkpoint = first[settled - 1].span.end if settled else 0
    resumed = files(batches(rows, checkpoint, after))
    kept = files(first[:settled])
    assert kept | resumed == files(first)
    assert not kept.keys() & resumed.keys()
