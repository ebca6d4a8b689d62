"""The join: nulls between quotes, values that are left out, commas."""

from __future__ import annotations

import pyarrow as pa

from pipeline.encode.pieces import Pieces

QUOTED, BARE = ('"', '"'), ("", "")


def test_a_null_between_quotes_is_none_of_the_texts_that_look_like_one() -> None:
    values = ["null", None, "", "ÿþ", None, '"', "x"]
    pieces = Pieces()
    pieces.nullable("[", pa.array(values), QUOTED)
    pieces.nullable(",", pa.array([None, "1", None, "2", None, "3", None]), BARE)
    pieces.nullable(",", pa.array(values[::-1]), QUOTED)
    pieces.literal("]")
    assert pieces.join(7).to_pylist() == [
        '["null",null,"x"]',
        '[null,1,"""]',
        '["",null,null]',
        '["ÿþ",2,"ÿþ"]',
        '[null,null,""]',
        '[""",3,null]',
        '["x",null,"null"]',
    ]


def test_ends_are_left_out_with_their_value_or_stand_aside_for_null() -> None:
    text = pa.array(["2026", None])
    pieces = Pieces()
    pieces.nullable("[", text, ('"', 'Z"'))
    pieces.nullable(",", text, ("", "]"))
    pieces.optional(",", text, "!")
    pieces.literal("]")
    assert pieces.join(2).to_pylist() == ['["2026Z",2026],2026!]', "[null,null]"]


def test_the_first_comma_goes_wherever_it_stands() -> None:
    text = pa.array([None, "é"])
    for first in (text, pa.array(["a", "b"])):
        inner = Pieces()
        inner.optional(",", first)
        inner.optional(",", text)
        whole = Pieces()
        whole.literal("{")
        whole.extend(inner.without_first_comma())
        whole.literal("}")
        expected = {
            (None, "é"): ["{}", "{é,é}"],
            ("a", "b"): ["{a}", "{b,é}"],
        }[tuple(first.to_pylist())]
        assert whole.join(2).to_pylist() == expected


def test_literals_alone_are_the_same_in_every_row() -> None:
    pieces = Pieces()
    pieces.literal(",x")
    assert pieces.without_first_comma().join(2).to_pylist() == ["x", "x"]
    assert Pieces().without_first_comma().join(1).to_pylist() == [""]
