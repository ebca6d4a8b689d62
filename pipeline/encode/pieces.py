"""What a payload is joined from: literals and columns, side by side, one join at the end.

Neighbouring literals melt into one, so that keys, quotes, commas and braces cost what one
constant costs. Commas never depend on which rows share a batch: the same row gives the same
bytes wherever it stands.
"""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

_EMPTY = pa.scalar("")


@lru_cache(maxsize=4096)
def _scalar(literal: str) -> pa.StringScalar:
    """The literals of a layout are the same in every batch, and take 2 µs each to make."""
    return pa.scalar(literal)


class Pieces:
    """A row-wise concatenation in the making."""

    __slots__ = ("_columns", "_literals")

    def __init__(self) -> None:
        self._columns: list[pa.StringArray] = []
        self._literals = [""]  # one before each column, and the last after all of them

    def literal(self, text: str) -> None:
        """The same text in every row."""
        self._literals[-1] += text

    def column(self, prefix: str, text: pa.StringArray, suffix: str = "") -> None:
        """A column with the same text before and after each value, which is `null` for a null."""
        self._literals[-1] += prefix
        self._columns.append(text)
        self._literals.append(suffix)

    def optional(self, prefix: str, text: pa.StringArray, suffix: str = "") -> None:
        """A column that leaves nothing at all, prefix and suffix included, where it is null."""
        if not text.null_count:
            self.column(prefix, text, suffix)
        elif text.null_count < len(text):
            self.column("", pc.coalesce(_around(text, (prefix, suffix)), _EMPTY))

    def nullable(self, prefix: str, text: pa.StringArray, ends: tuple[str, str]) -> None:
        """A JSON value, `null` where it is null. ends: what stands around the others."""
        if text.null_count and ends != ("", ""):
            text, ends = _around(text, ends), ("", "")
        self.column(prefix + ends[0], text, ends[1])

    def extend(self, other: Pieces) -> None:
        """All of another's parts after these."""
        self._literals[-1] += other._literals[0]
        self._literals += other._literals[1:]
        self._columns += other._columns

    def without_first_comma(self) -> Pieces:
        """These without the comma each row starts with, if it is not empty."""
        trimmed = Pieces()
        if self._columns and not self._literals[0]:
            trimmed.column("", pc.utf8_slice_codeunits(self.join(len(self._columns[0])), 1))
        else:
            trimmed.extend(self)
            trimmed._literals[0] = trimmed._literals[0][1:]
        return trimmed

    def join(self, rows: int) -> pa.StringArray:
        """The concatenations, one for each of `rows` rows, in memory of their own."""
        *literals, last = self._literals
        if not self._columns:
            return pa.repeat(pa.scalar(last), rows)
        parts = []
        for literal, column in zip(literals, self._columns, strict=True):
            if literal:
                parts.append(_scalar(literal))
            parts.append(column)
        if last:
            parts.append(_scalar(last))
        return pc.binary_join_element_wise(
            *parts, _EMPTY, null_handling="replace", null_replacement="null"
        )


def _around(text: pa.StringArray, ends: tuple[str, str]) -> pa.StringArray:
    before, after = map(_scalar, ends)
    return pc.binary_join_element_wise(before, text, after, _EMPTY)
