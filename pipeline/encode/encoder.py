"""RecordBatches of one schema to payloads: columns to text, one join, ids stamped in place.

Pure and thread-safe: an encoder holds only what was compiled. A row that can't be sent becomes a
dead letter with a reason and leaves its neighbours alone. Nothing here is done row by row but
the hash of message_id.py, and what only bad rows cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.calls import (
    CALLS,
    EMAIL_TRAIT,
    LIMITED_IDS,
    OBJECT_TYPE_DEFAULT,
    OBJECT_TYPE_FIELD,
    OBJECT_TYPE_TRAIT,
    Kind,
    Requirement,
)
from pipeline.encode.claims import proven
from pipeline.encode.compiler import compile_layout
from pipeline.encode.escape import text_offsets
from pipeline.encode.layout import Layout, Rules
from pipeline.encode.message_id import DIGITS, PLACEHOLDER, event_seed, message_ids, window_seed
from pipeline.encode.nonfinite import count_nonfinite
from pipeline.encode.objects import ObjectWriter
from pipeline.encode.pieces import Pieces
from pipeline.encode.users import user_hashes
from pipeline.encode.validity import Validity
from pipeline.model import Call, DeadLetter, Payloads, Reason, Span, Window

_ID_KEY = ',"messageId":"'
_MESSAGE_ID, _TIMESTAMP = "messageId", "timestamp"


class CallEncoder:
    """An `Encoder` of one sync's rows for one destination.

    separator: the one byte after every payload. payload_bytes, id_bytes, message_id_chars: what
    the destination accepts. users: whether the payloads say whom each is about, for an order by
    user.
    Raises ConfigError when the schema can't become the call.
    """

    def __init__(
        self,
        *,
        sync: str,
        call: Call,
        window: Window,
        schema: pa.Schema,
        rules: Rules,
        separator: bytes,
        payload_bytes: int,
        id_bytes: int | None = None,
        message_id_chars: int | None = None,
        users: bool = False,
    ) -> None:
        self._layout: Layout = compile_layout(sync, call, schema, rules, id_bytes=id_bytes)
        self._shape = CALLS[call]
        self._objects = ObjectWriter(self._layout.objects, schema, omit_nulls=rules.omit_nulls)
        self._end = "}" + separator.decode("ascii")
        self._payload_bytes, self._users = payload_bytes, users
        self._id_bytes, self._message_id_chars = id_bytes, message_id_chars
        self._window_seed, self._event_seed = window_seed(sync, window), event_seed(sync)

    def encode(self, batch: pa.RecordBatch, span: Span) -> Payloads:
        """See `pipeline.ports.Encoder`."""
        validity = Validity(batch.num_rows)
        fields = self._field_texts(batch, validity)
        self._check_required(batch, fields, validity)
        pieces = Pieces()
        pieces.literal('{"type":"' + self._layout.call + '"')
        for name in self._shape.fields:
            if name in self._layout.literals:
                pieces.literal(f',"{name}":{self._layout.literals[name]}')
            elif name in fields and name != _MESSAGE_ID:
                before, after = self._layout.fields[name].converter.ends
                pieces.optional(f',"{name}":{before}', fields[name], after)
        self._write_objects(pieces, batch, fields, validity)
        text = self._stamped(pieces, fields, batch.num_rows)
        validity.check_sizes(text, self._payload_bytes + 1)
        nonfinite = sum(count_nonfinite(batch.column(index)) for index in self._layout.floats)
        users = user_hashes(self._layout, batch, fields) if self._users else None
        return _payloads(text, span, validity, nonfinite, users)

    def _field_texts(self, batch: pa.RecordBatch, validity: Validity) -> dict[str, pa.StringArray]:
        """The unquoted text of every top-level string field; an empty one is null."""
        texts = {}
        for name, member in self._layout.fields.items():
            text = member.converter.convert(batch.column(member.column))
            if member.claim is not None:
                text = proven(member.claim, text, validity)
            if self._id_bytes is not None and name in LIMITED_IDS:
                validity.check_ids(text, self._id_bytes)
            if self._message_id_chars is not None and name == _MESSAGE_ID:
                validity.check_message_ids(text, self._message_id_chars)
            texts[name] = _empty_to_null(text)
        if OBJECT_TYPE_FIELD in texts:
            texts[OBJECT_TYPE_FIELD] = texts[OBJECT_TYPE_FIELD].fill_null(OBJECT_TYPE_DEFAULT)
        return texts

    def _check_required(
        self, batch: pa.RecordBatch, fields: dict[str, pa.StringArray], validity: Validity
    ) -> None:
        for requirement in self._layout.requires:
            given = [fields[name] for name in requirement.fields if name in fields]
            if all(text.null_count for text in given):
                missing = pc.is_null(pc.coalesce(*given))
                if self._layout.call is Call.IDENTIFY:
                    missing = self._unless_email(batch, fields, missing)
                if requirement.reason is Reason.MISSING_ID:
                    missing = self._unless_empty(batch, requirement, missing, validity)
                validity.refuse(missing, requirement.reason)

    def _unless_empty(
        self,
        batch: pa.RecordBatch,
        requirement: Requirement,
        missing: pa.BooleanArray,
        validity: Validity,
    ) -> pa.BooleanArray:
        """Rows without any id; those that have one, but of empty text, are refused as such."""
        if not pc.any(missing, min_count=0).as_py():
            return missing
        for name in requirement.fields:
            member = self._layout.fields.get(name)
            if member is not None:
                text = member.converter.convert(batch.column(member.column))
                empty = pc.and_(missing, pc.equal(pc.binary_length(text), 0)).fill_null(False)  # noqa: FBT003 - a value, not a flag
                validity.refuse(empty, Reason.EMPTY_ID)
                missing = pc.and_not(missing, empty)
        return missing

    def _unless_email(
        self, batch: pa.RecordBatch, fields: dict[str, pa.StringArray], missing: pa.BooleanArray
    ) -> pa.BooleanArray:
        """Rows with an empty (not a null) userId and an email are people all the same."""
        user, traits = self._layout.fields.get("userId"), self._layout.objects.get("traits")
        email = traits.member(EMAIL_TRAIT) if traits else None
        if user is None or email is None:
            return missing
        known = _empty_to_null(email.converter.convert(batch.column(email.column))).is_valid()
        given = user.converter.convert(batch.column(user.column))  # null for NaN too
        by_email = pc.and_(missing, pc.and_(given.is_valid(), known))
        fields["userId"] = pc.if_else(by_email, "", fields["userId"])
        return pc.and_not(missing, by_email)

    def _write_objects(
        self,
        pieces: Pieces,
        batch: pa.RecordBatch,
        fields: dict[str, pa.StringArray],
        validity: Validity,
    ) -> None:
        rest = self._shape.rest
        for name, kind in [*self._shape.fields.items(), (rest or "", Kind.OBJECT)]:
            tree = self._layout.objects.get(name)
            if kind is Kind.OBJECT and tree is not None:
                extra = {}
                if OBJECT_TYPE_FIELD in fields and name == rest:
                    extra[OBJECT_TYPE_TRAIT] = fields[OBJECT_TYPE_FIELD]
                self._objects.write(pieces, tree, batch, validity, extra, top=name != rest)

    def _stamped(
        self, pieces: Pieces, fields: dict[str, pa.StringArray], rows: int
    ) -> pa.StringArray:
        """The payloads, messageId and separator included."""
        given = fields.get(_MESSAGE_ID)
        seeds = self._seeds(fields.get(_TIMESTAMP), rows)
        if given is None:
            pieces.literal(_ID_KEY + PLACEHOLDER + '"' + self._end)
            return _stamp(pieces.join(rows), len(self._end) + 1, seeds)
        if given.null_count:
            body = pieces.join(rows)
            offsets = text_offsets(body)
            ids = message_ids(body.buffers()[2], offsets[:-1], offsets[1:], seeds)
            given = pc.coalesce(given, pa.array(ids.view(f"S{DIGITS}").ravel().astype(str)))
            pieces = Pieces()
            pieces.column("", body)
        pieces.column(_ID_KEY, given, '"' + self._end)
        return pieces.join(rows)

    def _seeds(self, timestamp: pa.StringArray | None, rows: int) -> int | Sequence[int]:
        if timestamp is None or not self._shape.events or timestamp.null_count == rows:
            return self._window_seed
        if not timestamp.null_count:
            return self._event_seed
        known = timestamp.is_valid().to_numpy(zero_copy_only=False)
        return [self._event_seed if own else self._window_seed for own in known]


def _empty_to_null(text: pa.StringArray) -> pa.StringArray:
    if len(text) and not np.diff(text_offsets(text)).all():
        empty = pc.equal(pc.binary_length(text), 0)
        return pc.if_else(empty, pa.scalar(None, pa.string()), text)
    return text


def _data(text: pa.StringArray) -> memoryview:
    data = text.buffers()[2]
    return memoryview(b"") if data is None else memoryview(data)


def _stamp(text: pa.StringArray, tail: int, seeds: int | Sequence[int]) -> pa.StringArray:
    """Put the ids over their placeholders, `tail` bytes before the end of each value.

    In place: the join's result is a fresh buffer that nothing else has seen yet.
    """
    if not len(text):
        return text
    data, offsets = text.buffers()[2], text_offsets(text)
    places = offsets[1:] - (tail + DIGITS)
    ids = message_ids(data, offsets[:-1], places - len(_ID_KEY), seeds)
    block = f"V{DIGITS}"
    overlapping = np.ndarray(len(data) - DIGITS + 1, dtype=block, buffer=data, strides=(1,))
    overlapping[places] = ids.view(block).ravel()
    return text


def _payloads(
    text: pa.StringArray,
    span: Span,
    validity: Validity,
    nonfinite: int,
    users: npt.NDArray[np.uint64] | None,
) -> Payloads:
    reasons = validity.reasons
    if reasons is None:
        offsets = text_offsets(text).astype(np.int64)
        return Payloads(
            data=_data(text), offsets=offsets, span=span, nonfinite=nonfinite, users=users
        )
    bad = np.flatnonzero(reasons)
    letters = tuple(
        DeadLetter(
            stream=span.stream,
            row=span.first + int(row),
            reason=validity.reason(int(row)),
            message=_MESSAGES[validity.reason(int(row))],
            payload=payload[:-1].encode(),
        )
        for row, payload in zip(bad, text.take(pa.array(bad)).to_pylist(), strict=True)
    )
    good = text.filter(pa.array(reasons == 0))
    rows = span.first + np.flatnonzero(reasons == 0)
    return Payloads(
        data=_data(good),
        offsets=text_offsets(good).astype(np.int64),
        span=span,
        rows=rows,
        invalid=letters,
        nonfinite=nonfinite,
        users=None if users is None else users[reasons == 0],
    )


_MESSAGES = {
    Reason.MISSING_ID: "the row has none of the ids that its call needs",
    Reason.EMPTY_ID: "the id of the row is empty text",
    Reason.ID_TOO_LONG: "an id of the row is longer than the destination accepts",
    Reason.MESSAGE_ID_TOO_LONG: "the messageId of the row is longer than the destination accepts; "
    "TO_HEX(MD5(...)) of it is as unique",
    Reason.MISSING_EVENT: "the row has no event name",
    Reason.MISSING_GROUP_ID: "the row has no groupId",
    Reason.MISSING_PREVIOUS_ID: "the row has no previousId",
    Reason.INVALID_JSON: "a column that should hold JSON, or a JSON object, does not",
    Reason.INVALID_NUMBER: "a column that should hold numbers, or Unix seconds, does not",
    Reason.PAYLOAD_TOO_LARGE: "the payload is larger than the destination accepts",
}
