"""Whom each payload is about, as the encoder says it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import Rules
from pipeline.encode.packer import Packer
from pipeline.encode.users import text_hashes
from pipeline.model import Call, Envelope, Limits, Payloads, Span, Window


def encoded(
    call: Call, columns: dict[str, Any], *, users: bool = True, **rules: object
) -> Payloads:
    table = pa.table(columns)
    (batch,) = table.combine_chunks().to_batches()
    encoder = CallEncoder(
        sync="s",
        call=call,
        window=Window(start=0, sequence=1),
        schema=batch.schema,
        rules=Rules(**rules),  # type: ignore[arg-type]
        separator=b",",
        payload_bytes=1_000,
        users=users,
    )
    return encoder.encode(batch, Span(stream=0, first=0, rows=batch.num_rows))


def groups(payloads: Payloads) -> list[int]:
    """The rows' users, numbered as they come."""
    assert payloads.users is not None
    assert payloads.users.dtype == np.uint64
    seen: dict[int, int] = {}
    return [seen.setdefault(user, len(seen)) for user in payloads.users.tolist()]


# Of every length around a word, and different in one place only.
TEXTS = ["", "a", "aa", "a\0", "1234567", "12345678", "123456789", "x" * 150, "x" * 149 + "y"]


def test_texts_have_one_hash_each_wherever_they_stand() -> None:
    texts = [*TEXTS, *(f"{'0' * 20}{number}" for number in range(20_000))]
    whole = text_hashes(pa.array(texts))
    assert len(set(whole.tolist())) == len(texts)
    assert text_hashes(pa.array(texts).slice(3, 5)).tolist() == whole[3:8].tolist()
    alone = [text_hashes(pa.array([text]))[0] for text in TEXTS]
    assert alone == whole[: len(TEXTS)].tolist()


def test_no_text_is_empty_text() -> None:
    assert text_hashes(pa.array([None, "", None], pa.string())).tolist() == [0, 0, 0]
    assert text_hashes(pa.array([], pa.string())).tolist() == []
    slots = pa.StringArray.from_buffers(
        2, pa.py_buffer(np.array([0, 3, 6], np.int32)), pa.py_buffer(b"abcdef"), pa.py_buffer(b"\2")
    )
    hidden = text_hashes(slots)  # null, with bytes in its slot, and "def"
    assert hidden[0] == 0
    assert hidden[1] == text_hashes(pa.array(["def"]))[0]


@pytest.mark.parametrize(
    ("call", "columns", "expected"),
    [
        (Call.IDENTIFY, {"userId": [7, 8, 7]}, [0, 1, 0]),
        # The first id that is there counts.
        (
            Call.IDENTIFY,
            {"userId": ["a", None, None, "a"], "anonymousId": ["x", "x", "y", "z"]},
            [0, 1, 2, 0],
        ),
        (Call.IDENTIFY, {"userId": ["", "", "a"], "email": ["x@x", "y@y", "y@y"]}, [0, 1, 2]),
        (Call.TRACK, {"event": ["e"] * 3, "userId": ["a", "b", "a"]}, [0, 1, 0]),
        (
            Call.TRACK,
            {"event": ["e"] * 3, "userId": ["a", None, None], "groupId": ["g", "g", "g"]},
            [0, 1, 1],
        ),
        (Call.GROUP, {"groupId": ["g", "h", "g"]}, [0, 1, 0]),
        (Call.GROUP, {"groupId": ["g", "h", "g"], "userId": ["a", "a", "b"]}, [0, 0, 1]),
        # Each is about two users.
        (Call.ALIAS, {"previousId": ["a", "b"], "userId": ["b", "c"]}, [0, 0]),
    ],
)
def test_the_user_is_whom_the_row_names(
    call: Call, columns: dict[str, Any], expected: list[int]
) -> None:
    assert groups(encoded(call, columns)) == expected


def test_ids_are_compared_as_they_are_sent() -> None:
    numbers, texts = (encoded(Call.IDENTIFY, {"userId": column}) for column in ([7, 8], ["7", "8"]))
    assert numbers.users is not None
    assert texts.users is not None
    assert numbers.users.tolist() == texts.users.tolist()


def test_of_a_constant_all_rows_are() -> None:
    columns = {"anonymousId": ["x", "y"]}
    assert groups(encoded(Call.IDENTIFY, columns, constants={"userId": "all"})) == [0, 0]


def test_invalid_rows_have_no_user() -> None:
    payloads = encoded(Call.IDENTIFY, {"userId": ["a", None, "b", "a"]})
    assert len(payloads.invalid) == 1
    assert groups(payloads) == [0, 1, 0]


def test_nobody_asked() -> None:
    assert encoded(Call.IDENTIFY, {"userId": ["a"]}, users=False).users is None


def test_what_waits_for_more_keeps_its_users() -> None:
    envelope = Envelope(prefix=b"[", separator=b",", suffix=b"]")
    limits = Limits(payload_bytes=1_000, batch_bytes=10_000, batch_rows=3)
    packer = Packer(limits, envelope, stream=0, first=0)
    payloads = encoded(Call.IDENTIFY, {"userId": list("abcde")})
    (full,) = packer.add(payloads)
    (rest,) = packer.flush()
    assert full.slices[0].payloads.users is payloads.users
    tail = rest.slices[0].payloads
    assert payloads.users is not None
    assert tail.users is not None
    assert tail.users.tolist() == payloads.users[3:].tolist()
