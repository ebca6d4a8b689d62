"""Scalars at the edges where `scalars.py` and `escape.py` change their way of writing them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.encode.escape import escape, with_texts
from pipeline.encode.scalars import (
    base64_text,
    decimal_text,
    finite_text,
    interval_text,
    iso_text,
    json_text,
    unix_text,
)

NUMERIC = pa.decimal128(38, 9)


def near(*edges: float) -> list[float]:
    """Each edge with its neighbours, of both signs."""
    found = [
        value
        for edge in edges
        for value in (np.nextafter(edge, 0), edge, np.nextafter(edge, np.inf))
    ]
    return [float(value) for value in (*found, *(-value for value in found))]


def cut(array: pa.Array) -> list[pa.Array]:
    """Whole, and cut at offsets within and beyond the first byte of a validity bitmap."""
    return [array, *(array.slice(at) for at in (1, 7, 8, 9, 17) if at < len(array))]


# ------------------------------------------------------------------------------- FLOAT64


@pytest.mark.parametrize("edge", near(1e-7, 1e-6, 1e-5, 1e-4, 1.0, 1e9, 1e10, 1e15, 1e16, 1e17))
def test_a_double_has_one_text_whatever_stands_beside_it(edge: float) -> None:
    arrow = pc.cast(pa.array([edge]), pa.string())[0].as_py()
    assert float(arrow) == edge
    beside: list[list[Any]] = [[edge], [edge, 0.5], [1e300, edge], [None, edge, -0.0, None]]
    for values in beside:
        at = values.index(edge)
        assert finite_text(pa.array(values, pa.float64()))[at].as_py() == arrow, values


def test_whole_doubles_lose_their_point_and_zero_keeps_its_sign() -> None:
    values = [0.0, -0.0, 1.0, -1.0, 10.0, 100.5, 123456.0, 0.25]
    texts = ["0", "-0", "1", "-1", "10", "100.5", "123456", "0.25"]
    assert finite_text(pa.array(values)).to_pylist() == texts


def test_doubles_that_are_no_numbers_are_null_and_neighbours_stay() -> None:
    array = pa.array(
        [None, 1.5, float("nan"), float("inf"), -2.0, None, 3.25, 0.0, None, 7.0, 1e22]
    )
    for part in cut(array):
        values = part.to_pylist()
        found = finite_text(part).to_pylist()
        finite = [value is not None and abs(value) < 1e300 for value in values]
        assert [text is not None for text in found] == finite
        assert [float(text) for text in found if text] == [
            value for value, fine in zip(values, finite, strict=True) if fine
        ]
    assert finite_text(pa.array([], pa.float64())).to_pylist() == []
    assert finite_text(pa.array([None, None], pa.float64())).to_pylist() == [None, None]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16()], ids=str)
def test_shorter_floats_have_their_own_shortest_text(kind: pa.DataType) -> None:
    array = pa.array([0.5, float("nan"), -2.0, None], kind)
    assert finite_text(array).to_pylist() == ["0.5", None, "-2", None]


# ------------------------------------------------------------------------------- decimals


def digits(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def unscaled(numbers: Sequence[int | None], kind: pa.DataType) -> pa.Array:
    values = [
        None
        if number is None
        else Decimal((number < 0, tuple(map(int, str(abs(number)))), -kind.scale))
        for number in numbers
    ]
    return pa.array(values, kind)


EDGES = [
    edge + step
    for edge in (0, 10**5, 10**6, 10**9, 10**14, 10**15, 10**18, 10**21, 2**53, 2**63, 2**64)
    for step in (-(10**6), -1, 0, 1, 10**6)
]
EDGES.append(11**6 * 1_234_567_891)  # six digits less divide it only in a base it is not written in


@pytest.mark.parametrize("number", sorted({*EDGES, *(-edge for edge in EDGES)}))
@pytest.mark.parametrize("scale", [1, 6, 7, 9, 15, 16, 20])
def test_a_decimal_has_all_its_digits_whatever_stands_beside_it(number: int, scale: int) -> None:
    kind = pa.decimal128(38, scale)
    one, plain = 10**scale, 15 * 10**scale // 10
    for numbers in ([number], [number, plain], [None, number, -one], [number, 10**30 + 1]):
        array = unscaled(numbers, kind)
        expected = [None if value is None else digits(value) for value in array.to_pylist()]
        assert decimal_text(array).to_pylist() == expected


@pytest.mark.parametrize("kind", [pa.decimal128(20, 0), pa.decimal256(40, 0)], ids=str)
def test_a_decimal_without_fraction_keeps_its_zeros(kind: pa.DataType) -> None:
    array = pa.array([Decimal(100), Decimal(0), None, Decimal(-1200)], kind)
    assert decimal_text(array).to_pylist() == ["100", "0", None, "-1200"]


@pytest.mark.parametrize("kind", [pa.decimal128(20, 1), pa.decimal256(40, 1)], ids=str)
def test_a_decimal_of_one_place_loses_its_zero(kind: pa.DataType) -> None:
    array = pa.array([Decimal("100.0"), Decimal("0.5"), None, 10**18 * Decimal(-1)], kind)
    assert decimal_text(array).to_pylist() == ["100", "0.5", None, "-1" + "0" * 18]


def test_decimals_are_cut_anywhere() -> None:
    for scale in (9, 20):
        numbers = [None if row % 3 == 1 else row * 10**9 + row for row in range(20)]
        array = unscaled(numbers, pa.decimal128(38, scale))
        texts = decimal_text(array).to_pylist()
        for at in range(20):
            assert decimal_text(array.slice(at)).to_pylist() == texts[at:]
            assert decimal_text(array.slice(at, 3)).to_pylist() == texts[at : at + 3]
    assert decimal_text(pa.array([], NUMERIC)).to_pylist() == []
    assert decimal_text(pa.array([None], NUMERIC)).to_pylist() == [None]


# ------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("unit", "value", "seconds", "millis"),
    [
        ("s", -1, "-1", "-1000"),
        ("s", 253_402_300_799, "253402300799", "253402300799000"),
        ("ms", -1, "-1", "-1"),
        ("ms", 1_999, "1", "1999"),
        ("us", -1, "-1", "-1"),
        ("us", 1_999_999, "1", "1999"),
        ("us", -1_000_000, "-1", "-1000"),
        ("ns", -1, "-1", "-1"),
        ("ns", 1_999_999_999, "1", "1999"),
    ],
)
def test_every_unit_of_time_is_floored(unit: str, value: int, seconds: str, millis: str) -> None:
    array = pa.array([None, value, *[None] * 8, value], pa.timestamp(unit))
    for part in cut(array):
        given = [each is not None for each in part.cast(pa.int64()).to_pylist()]
        assert unix_text(part, "second").to_pylist() == [seconds if one else None for one in given]
        assert unix_text(part, "millisecond").to_pylist() == [
            millis if one else None for one in given
        ]
    assert unix_text(array[:0], "second").to_pylist() == []


def test_iso_has_as_many_digits_as_the_unit_and_takes_no_zone_for_utc() -> None:
    moment = dt.datetime(1, 2, 3, 4, 5, 6)  # noqa: DTZ001
    digits_of = {"s": "", "ms": ".000", "us": ".000000"}
    for unit, fraction in digits_of.items():
        for zone in (None, "UTC", "+02:00"):
            array = pa.array([moment, None], pa.timestamp(unit)).cast(pa.timestamp(unit, "UTC"))
            array = array.cast(pa.timestamp(unit, zone))
            assert iso_text(array).to_pylist() == [f"0001-02-03T04:05:06{fraction}", None]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((0, 0, 0), "0-0 0 0:0:0"),
        ((12, 0, 1_000_000_000), "1-0 0 0:0:1"),
        ((-12, -1, -60_000_000_000), "-1-0 -1 -0:1:0"),
        ((11, 1, 3_600_000_000_000), "0-11 1 1:0:0"),
        ((-1, 0, 500_000_000), "-0-1 0 0:0:0.5"),
        ((1, 0, -1), "0-1 0 -0:0:0.000000001"),
        ((0, 0, 359_999_999_999_990), "0-0 0 99:59:59.99999999"),
        ((2**31 - 1, 2**31 - 1, 2**63 - 1), "178956970-7 2147483647 2562047:47:16.854775807"),
        ((-(2**31), -(2**31), -(2**63)), "-178956970-8 -2147483648 -2562047:47:16.854775808"),
    ],
)
def test_an_interval_is_bigquerys_text(parts: tuple[int, int, int], text: str) -> None:
    whole = pa.array([None, pa.MonthDayNano(parts), None, pa.MonthDayNano(parts)] * 3)
    for part in (*cut(whole), whole[1:2]):
        expected = [None if value is None else text for value in part.to_pylist()]
        assert interval_text(part).to_pylist() == expected


# ------------------------------------------------------------------------------- bytes, JSON, text


def test_base64_is_cut_anywhere_and_padded() -> None:
    values = [None if row % 5 == 3 else bytes(range(row)) for row in range(20)]
    array = pa.array(values, pa.binary())
    encoded = ["", "AA==", "AAE=", None, "AAECAw=="]
    assert base64_text(array).to_pylist()[:5] == encoded
    for at in range(20):
        assert base64_text(array.slice(at)).to_pylist() == base64_text(array).to_pylist()[at:]
    assert base64_text(array[:0]).to_pylist() == []
    assert base64_text(pa.array([None, None], pa.binary())).to_pylist() == [None, None]
    assert base64_text(pa.array([b"", b""], pa.binary())).to_pylist() == ["", ""]


def test_json_stands_on_one_line() -> None:
    texts = ['{"a":\r\n1}', "[\n]", "[\r]", '"X\\n"', None, " 1 "]
    found = json_text(pa.array(texts)).to_pylist()
    assert found == ['{"a":  1}', "[ ]", "[ ]", '"X\\n"', None, " 1 "]


def test_every_character_is_escaped_as_json_does_and_no_other() -> None:
    texts = [*map(chr, range(0x100)), '\\"', '"\\\\"', "\u2028😀", "", None, "a\x1fb"]
    for array in cut(pa.array(texts)):
        for row, value in zip(escape(array).to_pylist(), array.to_pylist(), strict=True):
            assert row == (None if value is None else json.dumps(value, ensure_ascii=False)[1:-1])
    plain = pa.array(["a b", " ", None, "é"])
    assert escape(plain) is plain  # costs a scan and nothing more


def test_a_column_of_text_has_a_limit_of_two_gib() -> None:
    like = pa.array(["a", "b"])
    for offsets in ([0, 2**31, 2**31], [0, 1, 2**31]):
        with pytest.raises(pa.ArrowCapacityError) as refused:
            with_texts(like, np.array(offsets), b"")
        assert str(refused.value) == "a column of more than 2 GiB of text; cut the batch"
    # The last byte within the limit is let through: Arrow then misses the two GiB themselves.
    with pytest.raises(pa.ArrowInvalid, match="larger than values array"):
        with_texts(like, np.array([0, 1, 2**31 - 1]), b"")
