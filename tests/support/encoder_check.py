"""Runs an oracle's `Case` through the real encoder and compares, row by row and to the byte."""

from __future__ import annotations

import json
from itertools import pairwise

import orjson
import pyarrow as pa
from encoder_oracle import Case, Row
from value_oracle import match, message_id, no_duplicates

from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import ColumnRule, Rules
from pipeline.model import Call, Payloads, Span, Window

SYNC, START, SEQUENCE = "orders of ünits", 1_700_000_000, 3
ROOM = 10**6


def schema_of(case: Case) -> pa.Schema:
    return pa.schema([column.kind.field(column.name) for column in case.columns])


def encoder_of(case: Case, payload_bytes: int = ROOM, separator: bytes = b",") -> CallEncoder:
    named = case.renames.keys() | case.forms.keys()
    rules = Rules(
        columns={name: rule(case, name) for name in sorted(named)},
        constants=case.constants,
        json_columns=sorted(case.json),
        times=case.times,
        omit_nulls=case.omit,
    )
    return CallEncoder(
        sync=SYNC,
        call=Call(case.call),
        window=Window(start=START, sequence=SEQUENCE),
        schema=schema_of(case),
        rules=rules,
        separator=separator,
        payload_bytes=payload_bytes,
        id_bytes=case.id_bytes,
    )


def rule(case: Case, name: str) -> str | ColumnRule | None:
    """In the shortest of the three forms that the configuration has."""
    form, to = case.forms.get(name), case.renames.get(name)
    return to if form is None else ColumnRule(to=to, form=form)


def batch_of(case: Case) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [column.array() for column in case.columns], schema=schema_of(case)
    )


def texts(payloads: Payloads, separator: bytes = b",") -> list[bytes]:
    data = bytes(payloads.data)
    found = [data[a:b] for a, b in pairwise(payloads.offsets.tolist())]
    assert all(text.endswith(separator) for text in found)
    return [text[:-1] for text in found]


def by_row(payloads: Payloads) -> dict[int, tuple[str | None, bytes]]:
    """Row -> (why it is invalid, payload). Every row of the span is there, once."""
    found = [(payloads.row(at), (None, text)) for at, text in enumerate(texts(payloads))]
    found += [(dead.row, (str(dead.reason), dead.payload)) for dead in payloads.invalid]
    assert all(dead.stream == payloads.span.stream for dead in payloads.invalid)
    rows = dict(found)
    assert sorted(row for row, _ in found) == list(range(payloads.span.first, payloads.span.end))
    assert [row for row, _ in found] == [
        *sorted(row for row, (why, _) in found if why is None),
        *sorted(row for row, (why, _) in found if why is not None),
    ]
    return rows


def check(case: Case, first: int = 0) -> None:
    """Every row is what the oracle says, to the byte."""
    payloads = encoder_of(case).encode(batch_of(case), Span(stream=7, first=first, rows=case.rows))
    for row, (reason, payload) in by_row(payloads).items():
        expected = Row(case, row - first)
        assert reason == expected.reason, f"{reason} and not {expected.reason}: {payload!r}"
        text = payload.decode()
        end = match(expected.tokens(), text)
        event = case.event and "timestamp" in expected.top
        hashed = message_id(text[:end], sync=SYNC, start=START, sequence=SEQUENCE, event=event)
        tail = [',"messageId":"', *expected.top.get("messageId", [hashed]), '"}']
        assert match(tail, text, end) == len(text)
        assert orjson.loads(payload)["type"] == case.call
        if not case.json:  # what a column holds is sent as it is, its own duplicates too
            json.loads(text, object_pairs_hook=no_duplicates)
