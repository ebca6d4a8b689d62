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

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[str | pa.StringArray] = []

    def literal(self, text: str) -> None:
        """The same text in every row."""
        if self._parts and isinstance(self._parts[-1], str):
            self._parts[-1] += text
        elif text:
            self._parts.append(text)

    def column(self, prefix: str, text: pa.StringArray, suffix: str = "") -> None:
        """A column with the same text before and after each value, which is `null` for a null."""
        self.literal(prefix)
        self._parts.append(text)
        self.literal(suffix)

    def optional(self, prefix: str, text: pa.StringArray, suffix: str = "") -> None:
        """A column that leaves nothing at all, prefix and suffix included, where it is null."""
        if not text.null_count:
            self.column(prefix, text, suffix)
        elif text.null_count < len(text):
            whole = (
                pc.binary_join_element_wise(prefix, text, suffix, "") if prefix + suffix else text
            )
            self._parts.append(pc.coalesce(whole, _EMPTY))

    def nullable(self, prefix: str, text: pa.StringArray, *, quoted: bool) -> None:
        """A JSON value, `null` where it is null. quoted: the text goes inside quotes."""
        if quoted and text.null_count:
            text, quoted = pc.binary_join_element_wise('"', text, '"', ""), False
        quote = '"' if quoted else ""
        self.column(prefix + quote, text, quote)

    def extend(self, other: Pieces) -> None:
        """All of another's parts after these."""
        for part in other._parts:
            if isinstance(part, str):
                self.literal(part)
            else:
                self._parts.append(part)

    def without_first_comma(self) -> Pieces:
        """These without the comma each row starts with, if it is not empty."""
        trimmed = Pieces()
        if not self._parts:
            return trimmed
        if isinstance(self._parts[0], str):
            trimmed._parts = [self._parts[0][1:], *self._parts[1:]]
        else:
            rows = len(self._parts[0])
            trimmed._parts = [pc.utf8_slice_codeunits(self.join(rows), 1)]
        return trimmed

    def join(self, rows: int) -> pa.StringArray:
        """The concatenations, one for each of `rows` rows."""
        if not any(isinstance(part, pa.Array) for part in self._parts):
            return pa.repeat(pa.scalar("".join(map(str, self._parts))), rows)
        parts = [_scalar(part) if isinstance(part, str) else part for part in self._parts]
        return pc.binary_join_element_wise(
            *parts, _EMPTY, null_handling="replace", null_replacement="null"
        )
