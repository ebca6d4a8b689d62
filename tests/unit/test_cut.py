from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model import Payloads, Slice, Span
from pipeline.send.cut import Part, halves_by_bytes, rows, stretches


def part(sizes: list[int], *edges: int) -> Part:
    """One payload of each size, without its separator, in slices between the edges."""
    texts = [b"x" * size + b"," for size in sizes]
    payloads = Payloads(
        data=memoryview(b"".join(texts)),
        offsets=np.cumsum([0, *map(len, texts)]).astype(np.int64),
        span=Span(stream=0, first=0, rows=len(sizes)),
    )
    return tuple(Slice(payloads, a, b) for a, b in pairwise([0, *edges, len(sizes)]) if a < b)


def numbers(one: Part) -> list[int]:
    return [row for piece in one for row in range(piece.start, piece.stop)]


def nbytes(one: Part) -> int:
    return sum(len(piece.view) + 1 for piece in one)


@given(st.lists(st.integers(0, 500), min_size=2, max_size=60), st.data())
def test_halves_by_bytes_are_as_even_as_rows_allow(sizes: list[int], data: st.DataObject) -> None:
    edge = data.draw(st.integers(0, len(sizes)))
    whole = part(sizes, edge)
    left, right = halves_by_bytes(whole)
    assert numbers(left) + numbers(right) == list(range(len(sizes)))
    assert rows(left) >= 1
    assert rows(right) >= 1
    apart = abs(nbytes(left) - nbytes(right))
    total = nbytes(whole)
    best = min(abs(total - 2 * sum(sizes[:i]) - 2 * i) for i in range(1, len(sizes)))
    assert apart == best


@pytest.mark.parametrize(
    ("total", "most", "counts"),
    [(10, None, [10]), (10, 10, [10]), (10, 9, [5, 5]), (10, 4, [3, 3, 4]), (3, 1, [1, 1, 1])],
)
def test_stretches_are_few_and_even(total: int, most: int | None, counts: list[int]) -> None:
    found = stretches(part([5] * total, 2), most)
    assert [rows(one) for one in found] == counts
    assert [row for one in found for row in numbers(one)] == list(range(total))
