"""Columns alike, converted together where a batch has many columns and few rows.

A kernel's call costs as much as some hundred of its values. The columns of an object that share a
type and a Converter are laid end to end, converted in one go, and cut apart again, which copies
nothing. The texts are the same as one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from pipeline.encode.columns import Converter
from pipeline.encode.layout import Member, Tree

# Beyond so many rows the copy costs what the calls did: docs/encoding.md.
_MOST_ROWS = 500

Texts = Mapping[int, pa.StringArray]
"""By column number."""


class Together:
    """The columns of one object that have others like them."""

    def __init__(self, tree: Tree, schema: pa.Schema) -> None:
        alike: dict[tuple[Converter, pa.DataType], list[int]] = {}
        for member in _columns(tree):
            if member.spread:
                continue
            key = member.converter, schema.field(member.column).type
            alike.setdefault(key, []).append(member.column)
        self._groups = [(key[0], columns) for key, columns in alike.items() if len(columns) > 1]

    def texts(self, batch: pa.RecordBatch) -> Texts:
        """What these columns convert to; nothing where it would not pay."""
        rows = batch.num_rows
        texts: dict[int, pa.StringArray] = {}
        if not 0 < rows <= _MOST_ROWS:
            return texts
        for converter, columns in self._groups:
            text = converter.convert(pa.concat_arrays([batch.column(column) for column in columns]))
            for place, column in enumerate(columns):
                texts[column] = text.slice(place * rows, rows)
        return texts


def _columns(tree: Tree) -> Iterator[Member]:
    for member in tree.members:
        if isinstance(member, Tree):
            yield from _columns(member)
        elif isinstance(member, Member):
            yield member
