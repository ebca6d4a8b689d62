"""Nested objects of a payload: traits, properties, context, integrations and what is inside.

Two shapes. With nulls sent, every member is there and the commas are constant. With nulls left
out, every member brings its comma in front, and the first comma goes at the end. Where a JSON
column gives an object's members, those that stand in the object already are taken out of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.claims import Claim, proven, proven_objects
from pipeline.encode.columns import json_literal
from pipeline.encode.layout import Literal, Member, Tree
from pipeline.encode.members import without_members
from pipeline.encode.pieces import Pieces
from pipeline.encode.together import Texts, Together
from pipeline.encode.validity import Validity
from pipeline.model import Reason

_NULL = pa.scalar(None, pa.string())
_JSON_SPACE = " \t\n\r"


class ObjectWriter:
    """Writes Trees into Pieces.

    trees: by name. omit_nulls: as the sync says, of traits and properties.
    """

    def __init__(self, trees: Mapping[str, Tree], schema: pa.Schema, *, omit_nulls: bool) -> None:
        self._omit_nulls = omit_nulls
        self._together = {name: Together(tree, schema) for name, tree in trees.items()}

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
        if tree.spread is not None:
            names = {member.name for member in tree.members} | extra.keys()
            inner.optional(",", _inside(tree.spread, names, batch, validity))
        texts = self._together[tree.name].texts(batch)
        self._members(inner, tree, batch, validity, texts, omit=top or self._omit_nulls)
        for name, text in extra.items():
            inner.column(f',{json_literal(name)}:"', text, '"')
        pieces.literal(tree.key + "{")
        pieces.extend(inner.without_first_comma())
        pieces.literal("}")

    def _members(
        self,
        inner: Pieces,
        tree: Tree,
        batch: pa.RecordBatch,
        validity: Validity,
        texts: Texts,
        *,
        omit: bool,
    ) -> None:
        """Each member with a comma before it."""
        for member in tree.members:
            if isinstance(member, Tree):
                nested = Pieces()
                self._members(nested, member, batch, validity, texts, omit=omit)
                inner.literal(member.key + "{")
                inner.extend(nested.without_first_comma())
                inner.literal("}")
            elif isinstance(member, Literal):
                if not (omit and member.text == "null"):
                    inner.literal(member.key + member.text)
            else:
                _write(inner, member, batch, validity, texts, omit=omit)


def _write(
    inner: Pieces,
    member: Member,
    batch: pa.RecordBatch,
    validity: Validity,
    texts: Texts,
    *,
    omit: bool,
) -> None:
    text = texts.get(member.column)
    if text is None:
        text = member.converter.convert(batch.column(member.column))
    if member.claim is not None:
        text = proven(member.claim, text, validity)
    ends = before, after = member.converter.ends
    if omit:
        inner.optional(member.key + before, text, after)
    elif member.spread and (column := batch.column(member.column)).null_count:
        text = pc.binary_join_element_wise(before, text, after, "")
        inner.optional(member.key, pc.if_else(column.is_null(), _NULL, text.fill_null("null")))
    else:
        inner.nullable(member.key, text, ends)


def _inside(
    member: Member, names: set[str], batch: pa.RecordBatch, validity: Validity
) -> pa.StringArray:
    """What a JSON column's objects hold between their braces, without the members in `names`.

    Null where that is nothing.
    """
    text = member.converter.convert(batch.column(member.column))
    text = pc.ascii_trim(text, _JSON_SPACE)
    is_object = pc.starts_with(text, "{")
    validity.refuse(pc.and_not(pc.not_equal(text, "null"), is_object), Reason.INVALID_JSON)
    text = pc.if_else(is_object, text, _NULL)
    if names or member.claim is Claim.JSON:
        text, objects = proven_objects(text, validity)
        text = without_members(text, objects, names, validity)
    elif member.claim is not None:
        text = proven(member.claim, text, validity)
    inside = pc.ascii_trim(pc.utf8_slice_codeunits(text, 1, -1), _JSON_SPACE)
    return pc.if_else(pc.greater(pc.binary_length(inside), 0), inside, _NULL)
