"""The messageId: who gives it, and that anybody can compute it."""

from __future__ import annotations

import json

import pyarrow as pa
import xxhash
from encoded_call import encode, rows, texts

from pipeline.encode.layout import Rules
from pipeline.model import Call


class TestMessageId:
    def test_it_can_be_computed_by_anybody(self) -> None:
        text = texts(encode(Call.IDENTIFY, {"userId": ["u"], "x": [1]}))[0]
        seed = xxhash.xxh3_64_intdigest(b"users\n1700000000\n3")
        payload = text[: text.index(',"messageId"')]
        assert json.loads(text)["messageId"] == xxhash.xxh3_128_hexdigest(payload.encode(), seed)

    def test_an_event_with_a_timestamp_keeps_its_id_in_another_window(self) -> None:
        columns = {"userId": ["u", "u"], "event": ["E", "E"], "timestamp": pa.array([1, None])}
        for text, scope in zip(
            texts(encode(Call.TRACK, columns)), (b"users", b"users\n1700000000\n3"), strict=True
        ):
            seed = xxhash.xxh3_64_intdigest(scope)
            payload = text[: text.index(',"messageId"')]
            assert json.loads(text)["messageId"] == xxhash.xxh3_128_hexdigest(
                payload.encode(), seed
            )

    def test_a_column_wins_and_its_nulls_are_filled(self) -> None:
        columns = {"userId": ["u", "v"], "messageId": ["mine", None]}
        hashed = rows(encode(Call.IDENTIFY, {"userId": ["u", "v"]}))
        found = rows(encode(Call.IDENTIFY, columns))
        assert [row["messageId"] for row in found] == ["mine", hashed[1]["messageId"]]
        assert (
            rows(encode(Call.IDENTIFY, {"userId": ["u"], "messageid": [5]}))[0]["messageId"] == "5"
        )

    def test_it_does_not_depend_on_the_neighbours(self) -> None:
        columns = {
            "userId": ["a", "b", "c"],
            "x": ['q"', None, "z"],
            "y": pa.array([None, 1.5, None]),
        }
        for rules in (Rules(), Rules(omit_nulls=True)):
            together = texts(encode(Call.IDENTIFY, columns, rules=rules))
            arrays = {name: pa.array(values) for name, values in columns.items()}
            apart = [
                texts(
                    encode(
                        Call.IDENTIFY, {n: a.slice(i, 1) for n, a in arrays.items()}, rules=rules
                    )
                )[0]
                for i in range(3)
            ]
            assert together == apart
