"""Nested objects of a payload: traits, properties, context, integrations and what is inside.

Two shapes. With nulls sent, every member is there and the commas are constant. With nulls left
out, every member brings its comma in front, and the first comma goes at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from secrets import token_hex

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.columns import json_literal
from pipeline.encode.layout import Member, Tree
from pipeline.encode.pieces import Pieces
from pipeline.encode.validity import Validity
from pipeline.model import Reason

_NULL = pa.scalar(None, pa.string())


class ObjectWriter:
    """Writes Trees into Pieces. omit_nulls: as the sync says, of traits and properties."""

    def __init__(self, *, omit_nulls: bool) -> None:
        self._omit_nulls = omit_nulls

    def write(
        self,
        pieces: Pieces,
        tree: Tree,
        batch: pa.RecordBatch,
        validity: Validity,
        extra: Mapping[str, pa.StringArray],
        *,
        top: bool,
    ) -> None:
        """`,"name":{...}` of a top-level object.

        extra: string members without nulls that no column gives, escaped already.
        top: it is a top-level field (context), whose null members are always left out.
        """
        inner = Pieces()
        self._members(inner, tree, batch, validity, omit=top or self._omit_nulls)
        for name, text in extra.items():
            inner.column(f',{json_literal(name)}:"', text, '"')
        pieces.literal(tree.key + "{")
        pieces.extend(inner.without_first_comma())
        pieces.literal("}")

    def _members(
        self, inner: Pieces, tree: Tree, batch: pa.RecordBatch, validity: Validity, *, omit: bool
    ) -> None:
        """Each member with a comma before it."""
        if tree.spread is not None:
            inner.optional(",", self._inside(tree.spread, batch, validity))
        for member in tree.members:
            if isinstance(member, Tree):
                nested = Pieces()
                self._members(nested, member, batch, validity, omit=omit)
                inner.literal(member.key + "{")
                inner.extend(nested.without_first_comma())
                inner.literal("}")
                continue
            text = self._text(member, batch, validity)
            quoted = member.converter.quoted
            if omit:
                quote = '"' if quoted else ""
                inner.optional(member.key + quote, text, quote)
            else:
                inner.nullable(member.key, text, quoted=quoted)

    def _text(self, member: Member, batch: pa.RecordBatch, validity: Validity) -> pa.StringArray:
        text = member.converter.convert(batch.column(member.column))
        if member.checked:
            text = _refuse_bad_json(text, validity)
        return text

    def _inside(self, member: Member, batch: pa.RecordBatch, validity: Validity) -> pa.StringArray:
        """What stands between an object's braces; null where that is nothing."""
        text = pc.utf8_trim_whitespace(self._text(member, batch, validity))
        is_object = pc.starts_with(text, "{")
        validity.refuse(pc.and_not(pc.not_equal(text, "null"), is_object), Reason.INVALID_JSON)
        inside = pc.utf8_trim_whitespace(pc.utf8_slice_codeunits(text, 1, -1))
        some = pc.and_(is_object, pc.greater(pc.binary_length(inside), 0))
        return pc.if_else(some, inside, _NULL)


# Unknown to whoever writes the rows, so that no value can fake it.
_MARKER = token_hex(8)


def _refuse_bad_json(text: pa.StringArray, validity: Validity) -> pa.StringArray:
    """Null for every value that is not JSON, its row refused.

    One parse of the whole column answers when all is well. Each value stands beside a marker in
    an array of its own, so that no combination of broken values can pass for whole ones.
    """
    items = pc.binary_join_element_wise(f'["{_MARKER}",', text.fill_null("null"), "]", "")
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(items)], items), ",")[0]
    try:
        parsed = orjson.loads(b"[" + joined.as_buffer().to_pybytes() + b"]")
        whole = len(parsed) == len(text) and all(
            len(item) == 2 and item[0] == _MARKER for item in parsed
        )
    except orjson.JSONDecodeError:
        whole = False
    if whole:
        return text
    bad = pa.array([not _is_json(value) for value in text.to_pylist()], pa.bool_())
    validity.refuse(bad, Reason.INVALID_JSON)
    return pc.if_else(bad, _NULL, text)


def _is_json(value: str | None) -> bool:
    try:
        return value is None or orjson.loads(value) is not ...
    except orjson.JSONDecodeError:
        return False
