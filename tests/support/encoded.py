"""Columns in, payloads out: the encoder as tests of its configuration want it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import Rules
from pipeline.model import Call, Payloads, Span, Window

JSON = {"ARROW:extension:name": "google:sqlType:json"}


def encode(
    given: Mapping[str, pa.Array | Sequence[Any]],
    /,
    *,
    call: Call = Call.IDENTIFY,
    json_type: Sequence[str] = (),
    id_bytes: int | None = 150,
    message_id_chars: int | None = 99,
    payload_bytes: int = 32_000,
    **rules: Any,
) -> Payloads:
    """The rows as one batch. json_type: names of STRING columns that are of type JSON."""
    arrays = [one if isinstance(one, pa.Array) else pa.array(one) for one in given.values()]
    schema = pa.schema(
        [
            pa.field(name, array.type, metadata=JSON if name in json_type else None)
            for name, array in zip(given, arrays, strict=True)
        ]
    )
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    encoder = CallEncoder(
        sync="users",
        call=call,
        window=Window(start=1_700_000_000, sequence=3),
        schema=schema,
        rules=Rules(**rules),
        separator=b",",
        payload_bytes=payload_bytes,
        id_bytes=id_bytes,
        message_id_chars=message_id_chars,
    )
    return encoder.encode(batch, Span(stream=0, first=0, rows=batch.num_rows))


def texts(payloads: Payloads) -> list[str]:
    """The payloads, without their messageIds."""
    data, offsets = bytes(payloads.data), payloads.offsets.tolist()
    found = [data[start : stop - 1].decode() for start, stop in pairwise(offsets)]
    return [text[: text.rindex(',"messageId":"')] + "}" for text in found]


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, which must not hold a member twice."""
    assert len(dict(pairs)) == len(pairs), f"a member is there twice: {pairs}"
    return dict(pairs)


def rows(payloads: Payloads) -> list[dict[str, Any]]:
    """The payloads, parsed, without their messageIds."""
    return [json.loads(text, object_pairs_hook=unique) for text in texts(payloads)]


def traits(given: Mapping[str, Any], /, **more: Any) -> list[dict[str, Any]]:
    """What identify sends of some columns beside a userId."""
    count = len(next(iter(given.values())))
    users = [f"u{row}" for row in range(count)]
    return [row.get("traits", {}) for row in rows(encode({"userId": users, **given}, **more))]


def reasons(payloads: Payloads) -> dict[int, str]:
    """Row -> why it is invalid."""
    return {letter.row: str(letter.reason) for letter in payloads.invalid}
