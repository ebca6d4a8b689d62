"""Hypothesis strategies for Arrow columns: every BigQuery type in every layout Arrow has for it.

A `Column` is drawn as plain Python values first, which the oracle reads, and becomes an Arrow
array afterwards, in a layout chosen to be awkward: at an offset in longer buffers at every level,
list offsets that do not begin at 0, null lists that cover values and null structs with fields.
What lies there is `junk` of the type, so that an encoder that reads it is found out.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from value_strategies import (
    BYTES,
    DATES,
    DATETIMES,
    FLOATS,
    INTERVALS,
    INTS,
    JUNK_TEXT,
    PLAIN_DECIMALS,
    PLAIN_FLOATS,
    TEXT,
    TIMES,
    decimals,
    exact,
    json_texts,
)

# How many examples the main property draws; the others draw their share. As many or fewer than CI
# are the same ones on every machine, so that a red build is red for everybody. A longer run draws
# anew each time, and what it finds is kept in tests/property/test_encoder_corpus.py.
_CI = 2_000
_MAIN = int(os.environ.get("RETL_TEST_EXAMPLES", _CI))


def examples(count: int, *, least: int = 1) -> settings:
    """Settings of a property that draws `count` examples in CI, and never fewer than `least`."""
    return settings(
        max_examples=max(least, count * _MAIN // _CI),
        deadline=None,
        derandomize=_MAIN <= _CI,
        print_blob=True,
        phases=[phase for phase in Phase if phase is not Phase.explain],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# ------------------------------------------------------------------------------- types


@dataclass(frozen=True)
class Kind:
    """A BigQuery type in one of Arrow's layouts.

    sql: what the oracle goes by; STRUCT and ARRAY have children, named in a STRUCT.
    """

    sql: str
    arrow: pa.DataType
    values: st.SearchStrategy[Any]
    junk: Any
    children: tuple[tuple[str, Kind], ...] = ()

    def __repr__(self) -> str:
        if self.sql == "STRUCT":
            return f"struct({', '.join(f'{name!r}: {kind!r}' for name, kind in self.children)})"
        if self.sql == "ARRAY":
            return f"array({self.children[0][1]!r}) as {self.arrow}"
        return f"KINDS[{self.sql!r}, {str(self.arrow)!r}]"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:  # noqa: FBT001 - IPython's way
        printer.text(repr(self))  # short, in what Hypothesis prints

    def field(self, name: str) -> pa.Field:
        """As the Storage Read API declares it."""
        extension = _EXTENSIONS.get(self.sql)
        metadata = {"ARROW:extension:name": f"google:sqlType:{extension}"} if extension else None
        return pa.field(name, self.arrow, metadata=metadata)


_EXTENSIONS = {"JSON": "json", "GEOGRAPHY": "geography", "DATETIME": "datetime"}
_BIG = 2**255 - 1

_LEAVES: tuple[tuple[str, pa.DataType, st.SearchStrategy[Any], Any], ...] = (
    ("STRING", pa.string(), TEXT, JUNK_TEXT),
    ("STRING", pa.large_string(), TEXT, JUNK_TEXT),
    ("STRING", pa.string_view(), TEXT, JUNK_TEXT),
    ("STRING", pa.dictionary(pa.int32(), pa.string()), TEXT, JUNK_TEXT),
    ("INT64", pa.int64(), INTS, 77),
    ("FLOAT64", pa.float64(), FLOATS, float("nan")),
    ("NUMERIC", pa.decimal128(38, 9), decimals(38, 9, 10**38 - 1), exact(-1, 9)),
    ("BIGNUMERIC", pa.decimal256(76, 38), decimals(76, 38, _BIG), exact(-1, 38)),
    ("BOOL", pa.bool_(), st.booleans(), True),
    ("BYTES", pa.binary(), BYTES, b"junk"),
    ("BYTES", pa.large_binary(), BYTES, b"junk"),
    ("DATE", pa.date32(), DATES, dt.date(1234, 5, 6)),
    ("TIME", pa.time64("us"), TIMES, dt.time(1, 2, 3)),
    ("DATETIME", pa.timestamp("us"), DATETIMES, dt.datetime(1234, 5, 6)),  # noqa: DTZ001
    ("TIMESTAMP", pa.timestamp("us", "UTC"), DATETIMES, dt.datetime(1234, 5, 6)),  # noqa: DTZ001
    ("JSON", pa.string(), json_texts(), "{junk\n"),
    ("GEOGRAPHY", pa.string(), st.sampled_from(["POINT(1 2)", "LINESTRING(0 0, 1 1)"]), JUNK_TEXT),
    ("INTERVAL", pa.month_day_nano_interval(), INTERVALS, pa.MonthDayNano([1, 2, 3])),
)
KINDS = {(sql, str(arrow)): Kind(sql, arrow, st.one_of(st.none(), values), junk)
         for sql, arrow, values, junk in _LEAVES}  # fmt: skip


def struct(children: dict[str, Kind]) -> Kind:
    """A STRUCT of named children."""
    return Kind(
        sql="STRUCT",
        arrow=pa.struct([kind.field(name) for name, kind in children.items()]),
        values=st.one_of(
            st.none(),
            st.fixed_dictionaries({name: kind.values for name, kind in children.items()}),
        ),
        junk={name: kind.junk for name, kind in children.items()},
        children=tuple(children.items()),
    )


def array(child: Kind, make: Any = pa.list_) -> Kind:
    """An ARRAY. make: pa.list_, pa.large_list, or a function of the item's field."""
    return Kind(
        sql="ARRAY",
        arrow=make(child.field("item")),
        values=st.one_of(st.none(), st.lists(child.values, max_size=3)),
        junk=[child.junk] if child.children else [child.junk, child.junk],  # deep, but not wide
        children=(("item", child),),
    )


def pair(child: Kind) -> Kind:
    """An ARRAY in Arrow's layout of a fixed size, two; no BigQuery type, but a file may have it."""
    return Kind(
        sql="ARRAY",
        arrow=pa.list_(child.field("item"), 2),
        values=st.one_of(st.none(), st.lists(child.values, min_size=2, max_size=2)),
        junk=[child.junk, child.junk],
        children=(("item", child),),
    )


# Awkward names; none has a dot (a place) or is told apart from another by case alone.
NAMES = ("a", "B2", "ü€", 'q"uote', "back\\slash", "new\nline", "😀", "with space", "type")
PLAIN = [
    Kind("FLOAT64", pa.float64(), st.one_of(st.none(), PLAIN_FLOATS), 1.5),
    Kind("NUMERIC", pa.decimal128(38, 9), st.one_of(st.none(), PLAIN_DECIMALS), exact(1, 9)),
]
LEAVES = st.sampled_from([*KINDS.values(), *PLAIN])
RANGES = st.sampled_from([("DATE", "date32[day]"), ("DATETIME", "timestamp[us]")]).map(
    lambda key: struct({"start": KINDS[key], "end": KINDS[key]})
)


def _nested(inner: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)
    structs = names.flatmap(
        lambda found: st.fixed_dictionaries(dict.fromkeys(found, inner)).map(struct)
    )
    return st.one_of(
        structs,
        inner.map(array),
        inner.map(lambda kind: array(kind, pa.large_list)),
        inner.map(pair),
    )


TYPES = st.one_of(LEAVES, RANGES, st.recursive(LEAVES, _nested, max_leaves=4))


# ------------------------------------------------------------------------------- arrays


@dataclass(frozen=True)
class Column:
    """A column's values, as Python has them, and how to lay them out.

    pad: junk before the values, at this level; levels below have some of their own.
    """

    name: str
    kind: Kind
    values: tuple[Any, ...]
    pad: int = 0

    def array(self) -> pa.Array:
        """In Arrow."""
        return lay_out(self.kind, self.values, self.pad)


def columns(name: str, kinds: st.SearchStrategy[Kind], rows: int) -> st.SearchStrategy[Column]:
    """A column of as many rows."""
    return kinds.flatmap(
        lambda kind: st.builds(
            Column,
            name=st.just(name),
            kind=st.just(kind),
            values=st.lists(kind.values, min_size=rows, max_size=rows).map(tuple),
            pad=st.integers(0, 3),
        )
    )


def lay_out(kind: Kind, values: Sequence[Any], pad: int) -> pa.Array:
    """An array of the values with `pad` values of junk before them and `pad % 2` after them."""
    junk = [kind.junk]
    padded = [*junk * pad, *values, *junk * (pad % 2)]
    below = (pad + 1) % 3 if pad else 0
    if kind.sql == "STRUCT":
        whole = _structs(kind, padded, below)
    elif kind.sql == "ARRAY":
        whole = _lists(kind, padded, below)
    elif kind.sql == "BIGNUMERIC":
        whole = _big_decimals(kind.arrow, padded)
    else:
        whole = pa.array(padded, pa.string() if pa.types.is_dictionary(kind.arrow) else kind.arrow)
        if pa.types.is_dictionary(kind.arrow):
            whole = whole.dictionary_encode()
    return whole.slice(pad, len(values))


def _mask(values: Sequence[Any]) -> pa.BooleanArray:
    return pa.array([value is None for value in values], pa.bool_())


def _structs(kind: Kind, values: Sequence[Any], pad: int) -> pa.StructArray:
    """Null structs have fields with junk in them."""
    children = [
        lay_out(child, [child.junk if value is None else value[name] for value in values], pad)
        for name, child in kind.children
    ]
    mask = _mask(values) if None in values else None
    return pa.StructArray.from_arrays(children, fields=list(kind.arrow), mask=mask)


def _lists(kind: Kind, values: Sequence[Any], pad: int) -> pa.Array:
    """Null lists cover junk, and the values of all lists begin at an offset."""
    child = kind.children[0][1]
    found = [kind.junk[: 2 if _is_pair(kind) else pad] if v is None else v for v in values]
    flat = [item for value in found for item in value]
    mask = _mask(values) if None in values else None
    if _is_pair(kind):
        return pa.FixedSizeListArray.from_arrays(
            lay_out(child, flat, pad), type=kind.arrow, mask=mask
        )
    offsets = [0, *accumulate(map(len, found))]
    shifted = [offset + pad for offset in offsets]
    items = lay_out(child, [child.junk] * pad + flat + [child.junk] * pad, pad)
    large = pa.types.is_large_list(kind.arrow)
    make = pa.LargeListArray if large else pa.ListArray
    numbers = pa.array(shifted, pa.int64() if large else pa.int32())
    return make.from_arrays(numbers, items, type=kind.arrow, mask=mask)


def _is_pair(kind: Kind) -> bool:
    return bool(pa.types.is_fixed_size_list(kind.arrow))


def _big_decimals(kind: pa.DataType, values: Sequence[Decimal | None]) -> pa.Array:
    """From bytes: pyarrow refuses the BIGNUMERIC values of 77 digits, which BigQuery has."""
    raw = b"".join(_unscaled(value).to_bytes(32, "little", signed=True) for value in values)
    bits = [sum((v is not None) << at for at, v in enumerate(values[i : i + 8]))
            for i in range(0, len(values), 8)]  # fmt: skip
    return pa.Array.from_buffers(kind, len(values), [pa.py_buffer(bytes(bits)), pa.py_buffer(raw)])


def _unscaled(value: Decimal | None) -> int:
    if value is None:
        return 12_345
    sign, digits, _ = value.as_tuple()
    number = int("".join(map(str, digits)))
    return -number if sign else number


def cuts(rows: int) -> st.SearchStrategy[list[int]]:
    """Where to cut `rows` rows into batches, 0 and `rows` included; empty batches too."""
    return st.lists(st.integers(0, rows), max_size=4).map(lambda at: [0, *sorted(at), rows])


def spans(at: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, rows) of each batch."""
    for first, end in pairwise(at):
        yield first, end - first
