"""Parts of a Batch, to find the rows that a destination refuses. Pure; nothing is copied."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pipeline.model import DeadLetter, Slice

Part = tuple[Slice, ...]


def rows(part: Sequence[Slice]) -> int:
    """How many payloads."""
    return sum([piece.stop - piece.start for piece in part])


def cut(part: Part, *places: int) -> tuple[Part, ...]:
    """The part, cut before each of these payloads; the places ascend."""
    edges = [0, *places, rows(part)]
    return tuple(_between(part, start, stop) for start, stop in pairwise(edges))


def halves(part: Part) -> tuple[Part, ...]:
    """Two parts of half the rows each."""
    return cut(part, rows(part) // 2)


def halves_by_bytes(part: Part) -> tuple[Part, ...]:
    """Two parts of about half the bytes each, and at least one row."""
    sizes = np.concatenate([np.diff(s.payloads.offsets[s.start : s.stop + 1]) for s in part])
    until = np.cumsum(sizes)
    middle = int(np.searchsorted(until, until[-1] / 2)) + 1
    # The row in the middle goes where it makes less difference.
    if middle > 1 and until[middle - 1] + until[middle - 2] > until[-1]:
        middle -= 1
    return cut(part, min(middle, len(sizes) - 1))


def stretches(part: Part, most: int | None) -> tuple[Part, ...]:
    """As few parts as can be, of about the same size, none of more than `most` rows."""
    total = rows(part)
    if most is None or total <= most:
        return (part,)
    count = -(-total // most)
    return cut(part, *[index * total // count for index in range(1, count)])


def probes(part: Part, count: int) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """`count` single rows spread over the part, and the stretches between them."""
    total = rows(part)
    picked = [index * (total - 1) // (count - 1) for index in range(count)]
    pieces = cut(part, *[place for row in picked for place in (row, row + 1)])
    return pieces[1::2], tuple(piece for piece in pieces[::2] if rows(piece))


def refuse(part: Part, reason: str, message: str) -> list[DeadLetter]:
    """Every row of the part as a dead letter."""
    return [
        DeadLetter(
            stream=piece.payloads.span.stream,
            row=piece.payloads.row(index),
            reason=reason,
            message=message,
            payload=bytes(Slice(piece.payloads, index, index + 1).view),
        )
        for piece in part
        for index in range(piece.start, piece.stop)
    ]


def _between(part: Part, start: int, stop: int) -> Part:
    found = []
    for piece in part:
        first, last = max(start, 0), min(stop, piece.rows)
        if first < last:
            found.append(Slice(piece.payloads, piece.start + first, piece.start + last))
        start, stop = start - piece.rows, stop - piece.rows
    return tuple(found)
