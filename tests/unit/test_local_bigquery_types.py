"""BigQuery's types through their four forms, and data through DuckDB and back."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.local.bigquery import arrow, rows
from pipeline.local.bigquery.errors import LocalError
from pipeline.local.bigquery.macros import MACROS
from pipeline.local.bigquery.types import (
    Column,
    arrow_field,
    arrow_schema,
    duckdb_type,
    from_arrow,
    from_duckdb,
    from_rest,
    select,
    sql_type,
    to_rest,
)

EXTENSION = b"ARROW:extension:name"
DATE = Column(name="", kind="DATE")


def scalar(kind: str, *, repeated: bool = False) -> Column:
    return Column(name="c", kind=kind, repeated=repeated)


# Every type: its Arrow type, its extension name, one value and how REST writes it.
CASES: dict[str, tuple[pa.DataType, str, Any, object]] = {
    "INT64": (pa.int64(), "", -(2**63), "-9223372036854775808"),
    "FLOAT64": (pa.float64(), "", 1.5, "1.5"),
    "NUMERIC": (pa.decimal128(38, 9), "", Decimal("-1.5"), "-1.5"),
    "BIGNUMERIC": (
        pa.decimal256(76, 38),
        "",
        Decimal("-12345678901234567890123456789012345678.00000000000000000000000000000000000001"),
        "-12345678901234567890123456789012345678.00000000000000000000000000000000000001",
    ),
    "BOOL": (pa.bool_(), "", True, "true"),
    "STRING": (pa.string(), "", "é", "é"),
    "BYTES": (pa.binary(), "", b"\x00\xff", "AP8="),
    "DATE": (pa.date32(), "", dt.date(1, 1, 1), "0001-01-01"),
    "TIME": (pa.time64("us"), "", dt.time(1, 2, 3, 4), "01:02:03.000004"),
    "DATETIME": (
        pa.timestamp("us"),
        "google:sqlType:datetime",
        dt.datetime(1969, 12, 31, 23, 59, 59),  # noqa: DTZ001 - a DATETIME has no zone
        "1969-12-31T23:59:59",
    ),
    "TIMESTAMP": (
        pa.timestamp("us", tz="UTC"),
        "",
        dt.datetime(1969, 12, 31, 23, 59, 59, 500_000, dt.UTC),
        "-500000",
    ),
    "JSON": (pa.string(), "google:sqlType:json", '{"a":1}', '{"a":1}'),
    "GEOGRAPHY": (pa.string(), "google:sqlType:geography", "POINT(1 2)", "POINT(1 2)"),
    "INTERVAL": (
        pa.month_day_nano_interval(),
        "",
        pa.MonthDayNano([-14, 3, 3_661_500_000_000]),
        "-1-2 3 1:1:1.500000",
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_arrow_field(kind: str) -> None:
    dtype, extension, _, _ = CASES[kind]
    field = arrow_field(scalar(kind))
    assert field.type == dtype
    assert (field.metadata or {}).get(EXTENSION, b"").decode() == extension
    repeated = arrow_field(scalar(kind, repeated=True))
    assert repeated.type.value_type == dtype
    assert not repeated.nullable
    for part in (repeated, repeated.type.value_field):
        assert (part.metadata or {}).get(EXTENSION, b"").decode() == extension


NESTED = Column(
    name="s",
    kind="STRUCT",
    fields=(
        Column(name="a", kind="JSON"),
        Column(name="r", kind="RANGE", fields=(DATE,)),
        Column(
            name="l", kind="STRUCT", repeated=True, fields=(Column(name="g", kind="GEOGRAPHY"),)
        ),
    ),
)
COLUMNS = [
    *(scalar(kind) for kind in CASES),
    *(scalar(kind, repeated=True) for kind in CASES),
    Column(name="c", kind="RANGE", fields=(Column(name="", kind="DATETIME"),)),
    NESTED,
]


@pytest.mark.parametrize("column", COLUMNS, ids=sql_type)
def test_every_form_reads_back(column: Column) -> None:
    assert from_arrow(arrow_field(column)) == column
    assert from_rest(to_rest(column)) == column
    with duckdb.connect() as connection:
        relation = connection.sql(f"SELECT CAST(NULL AS {duckdb_type(column)}) AS c")
        assert from_duckdb(column.name, relation.types[0]) == column


def through_duckdb(table: pa.Table, columns: list[Column]) -> pa.Table:
    stored = arrow.to_duckdb(table, columns)
    with duckdb.connect() as connection:
        for macro in MACROS:
            connection.execute(macro)
        listed = ", ".join(f'"{c.name}" {duckdb_type(c)}' for c in columns)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE TABLE t ({listed})")
        connection.register("source", stored)
        connection.execute("INSERT INTO t SELECT * FROM source")
        reader = connection.sql("SELECT * FROM t").to_arrow_reader(1000)
        return arrow.reader(reader, columns).read_all()


@pytest.mark.parametrize("kind", CASES)
def test_values_survive_and_null_arrays_read_as_empty(kind: str) -> None:
    value = CASES[kind][2]
    columns = [scalar(kind), Column(name="l", kind=kind, repeated=True)]
    fields = [pa.field(f.name, f.type, metadata=f.metadata) for f in arrow_schema(columns)]
    loose = pa.schema(fields)
    data = [{"c": value, "l": [value, value]}, {"c": None, "l": None}, {"c": value, "l": []}]
    got = through_duckdb(pa.Table.from_pylist(data, schema=loose), columns)
    assert got.schema.equals(arrow_schema(columns), check_metadata=True)
    data[1]["l"] = []
    assert got.to_pylist() == data


@pytest.mark.parametrize("kind", CASES)
def test_rest_text(kind: str) -> None:
    column, (_, _, value, text) = scalar(kind), CASES[kind]
    table = pa.Table.from_pylist([{"c": value}, {"c": None}], schema=arrow_schema([column]))
    got = rows.to_rows(table, [column], int64_timestamps=True)
    assert got == [{"f": [{"v": text}]}, {"f": [{"v": None}]}]


def test_rest_text_of_nested_values_and_odd_numbers() -> None:
    column = Column(name="s", kind="STRUCT", fields=(scalar("FLOAT64", repeated=True),))
    value = {"c": [float("nan"), float("inf"), float("-inf")]}
    table = pa.Table.from_pylist([{"s": value}], schema=arrow_schema([column]))
    cells = [{"v": "NaN"}, {"v": "Infinity"}, {"v": "-Infinity"}]
    assert rows.to_rows(table, [column], int64_timestamps=True) == [
        {"f": [{"v": {"f": [{"v": cells}]}}]}
    ]
    moment = pa.table({"c": pa.array([1_500_000], pa.timestamp("us", tz="UTC"))})
    (row,) = rows.to_rows(moment, [scalar("TIMESTAMP")], int64_timestamps=False)
    assert row == {"f": [{"v": "1.5"}]}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.decimals(
            min_value=Decimal(-(10**38) + 1),
            max_value=Decimal(10**38 - 1),
            allow_nan=False,
            places=20,
        )
    )
)
def test_bignumeric_is_exact_and_ordered(values: list[Decimal]) -> None:
    columns = [scalar("BIGNUMERIC")]
    table = pa.table({"c": pa.array(values, pa.decimal256(76, 38))})
    stored = arrow.to_duckdb(table, columns)
    with duckdb.connect() as connection:
        connection.register("source", stored)
        reader = connection.sql("SELECT * FROM source ORDER BY c").to_arrow_reader(1000)
        got = arrow.reader(reader, columns).read_all().column(0).to_pylist()
    assert got == sorted(values)


def test_sliced_lists_with_nulls() -> None:
    column = Column(name="c", kind="STRING", repeated=True)
    array = pa.array([["a"], None, ["b", "c"], []]).slice(1)
    batch = pa.record_batch({"c": array})
    assert arrow.to_bigquery(batch, [column]).column(0).to_pylist() == [[], ["b", "c"], []]


def test_a_null_inside_an_array_is_refused() -> None:
    batch = pa.record_batch({"c": pa.array([["a", None]])})
    with pytest.raises(LocalError, match="null element"):
        arrow.to_bigquery(batch, [Column(name="c", kind="STRING", repeated=True)])


def test_too_wide_numbers_are_refused() -> None:
    batch = pa.record_batch({"c": pa.array([Decimal(10) ** 30], pa.decimal128(38, 0))})
    for kind in ("INT64", "NUMERIC"):
        with pytest.raises(LocalError, match="overflow"):
            arrow.to_bigquery(batch, [scalar(kind)])


def test_select_nested_fields_in_the_tables_order() -> None:
    columns = (scalar("INT64"), NESTED)
    assert [c.name for c in select(columns, ["S", "c"])] == ["c", "s"]
    (picked,) = select(columns, ["s.r", "s.a"])
    assert [field.name for field in picked.fields] == ["a", "r"]
    for wrong in (["nope"], ["s.nope"], ["c.x"]):
        with pytest.raises(LocalError, match="do not exist"):
            select(columns, wrong)


@pytest.mark.parametrize("dtype", [pa.map_(pa.string(), pa.string()), pa.duration("s")])
def test_arrow_types_without_a_counterpart(dtype: pa.DataType) -> None:
    with pytest.raises(LocalError, match="does not support"):
        from_arrow(pa.field("c", dtype))


def test_rest_refuses_an_unknown_type() -> None:
    with pytest.raises(LocalError, match="not a valid value"):
        from_rest({"name": "c", "type": "NOPE"})
