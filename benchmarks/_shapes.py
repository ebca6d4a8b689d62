"""The tables that the encoder is measured on, cut into RecordBatches as the service sends them.

Every shape is deterministic. A batch holds as many rows as make about 1 MB of JSON.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.encode.layout import Rules
from pipeline.local.bigquery.memory import MemoryTable
from pipeline.model import Call

BATCHES = 8
_PARTS = ("plain", 'quo"ted', "back\\slash", "two\nlines", "tab\tbed", "bell\x07", "naïve", "日本")
_JSON = {"ARROW:extension:name": "google:sqlType:json"}
_NULLS = 0.3
_MOMENT = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True)
class Shape:
    """One table. columns: as `syncs.<name>.columns`."""

    name: str
    table: pa.Table
    rows: int
    call: Call = Call.IDENTIFY
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def rules(self) -> Rules:
        """The configuration of a sync of this table."""
        return Rules(columns=self.columns)

    @property
    def batches(self) -> list[pa.RecordBatch]:
        """The table in batches of `rows` rows, each with buffers of its own."""
        table = self.table.slice(0, BATCHES * self.rows).combine_chunks()
        parts = table.to_batches(max_chunksize=self.rows)
        return [pa.ipc.read_record_batch(part.serialize(), part.schema) for part in parts]


def shapes() -> list[Shape]:
    """(a) users, (b) TPC-H orders and customer, (c) wide, (d) nested."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(Path(sys.executable).with_name("tpchgen-cli")),
            "parquet",
            "--scale-factor=0.1",
        ]
        command += ["--tables=orders,customer", "--no-progress", f"--output-dir={folder}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        orders, customer = (_tpch(Path(folder), name) for name in ("orders", "customer"))
    return [
        Shape("users", MemoryTable.users(2_500 * BATCHES).table(), 2_500, columns=_ID),
        Shape("tpch_orders", orders, 3_200, Call.TRACK, _ORDERS),
        Shape("tpch_customer", customer, 1_800, columns={"c_custkey": "userId"}),
        Shape("wide", _wide(160 * BATCHES, 300), 160, columns=_ID),
        Shape("nested", _nested(1_100 * BATCHES), 1_100, columns=_ID),
    ]


_ID = {"id": "userId"}
_ORDERS = {"o_custkey": "userId", "o_orderpriority": "event", "o_orderdate": "timestamp"}


def nested(shape: Shape) -> pa.Table:
    """The rows in the payload's form: type, ids as text, and the rest in one STRUCT.

    Columns keep BigQuery's types, but for BYTES, which polars can't write: they are base64.
    """
    table = shape.table.slice(0, BATCHES * shape.rows).combine_chunks()
    tops, rest = {"type": pa.repeat(pa.scalar(str(shape.call)), table.num_rows)}, {}
    for name, chunks in zip(table.column_names, table.columns, strict=True):
        column = chunks.combine_chunks()
        if pa.types.is_binary(column.type):
            values = [value if value is None else b64encode(value) for value in column.to_pylist()]
            column = pa.array(values, pa.string())
        if name in shape.columns:
            tops[shape.columns[name]] = column.cast(pa.string())
        else:
            rest[name] = column
    name = "properties" if shape.call is Call.TRACK else "traits"
    return pa.table(tops | {name: _struct(**rest)})


def json_types(column: pa.Array) -> pa.Array:
    """The column with numbers for times and decimals and text for dates, at any depth."""
    kind = column.type
    if pa.types.is_struct(kind):
        fields = {kind[index].name: json_types(column.field(index)) for index in range(len(kind))}
        return pa.StructArray.from_arrays(
            list(fields.values()), list(fields), mask=column.is_null()
        )
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(column.offsets, json_types(column.values))
    if pa.types.is_timestamp(kind):
        seconds = pc.floor_temporal(column, unit="second")
        return seconds.cast(pa.timestamp("s", kind.tz)).cast(pa.int64())
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64())
    return column.cast(pa.string()) if pa.types.is_date(kind) else column


def _tpch(folder: Path, name: str) -> pa.Table:
    """A table of the published generator, with the types that BigQuery would give it."""
    table = pq.read_table(folder / f"{name}.parquet")
    types = {pa.string_view(): pa.string(), pa.decimal128(15, 2): pa.decimal128(38, 9)}
    return table.cast(pa.schema([(f.name, types.get(f.type, f.type)) for f in table.schema]))


def _wide(rows: int, columns: int) -> pa.Table:
    """Scalars of every common type in turn; one column in three has 30 % nulls."""
    random = np.random.default_rng(1)
    makers: list[Callable[[], pa.Array]] = [
        lambda: pa.array(random.integers(-(10**6), 10**12, rows)),
        lambda: _words(random, rows, ("alpha", "bravo", "charlie", "delta delta", "écho")),
        lambda: pa.array(random.random(rows) * 1000),
        lambda: pa.array(random.random(rows) < 0.5),
        lambda: pa.array(random.integers(0, 10**9, rows)).cast(pa.decimal128(38, 9)),
        lambda: pa.array(random.integers(10**15, 17 * 10**14, rows)).cast(_MOMENT),
        lambda: pa.array(random.integers(0, 20_000, rows, dtype=np.int32)).cast(pa.date32()),
        lambda: pa.array([random.bytes(9) for _ in range(rows)]),
    ]
    table = {"id": pa.array(range(rows))}
    for index in range(columns - 1):
        column = makers[index % len(makers)]()
        if index % 3 == 0:
            column = _with_nulls(random, column)
        table[f"column_{index:03}"] = column
    return pa.table(table)


def _nested(rows: int) -> pa.Table:
    """STRUCTs, ARRAYs of STRUCTs and JSON; text with all that JSON escapes; 30 % nulls."""
    random = np.random.default_rng(2)

    def text(count: int) -> pa.Array:
        return _with_nulls(random, _words(random, count, _PARTS, most=6))

    def number(count: int) -> pa.Array:
        return _with_nulls(random, pa.array(random.integers(0, 10**6, count)))

    lengths = random.integers(0, 4, rows)
    lengths[random.random(rows) < _NULLS] = 0  # BigQuery has no null ARRAYs: they are empty
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
    items = int(lengths.sum())
    lines = _struct(
        sku=text(items),
        quantity=number(items),
        price=_with_nulls(random, pa.array(random.integers(0, 10**6, items))).cast(
            pa.decimal128(38, 9)
        ),
        at=_with_nulls(random, pa.array(random.integers(0, 10**15, items))).cast(_MOMENT),
    )
    home = _struct(street=text(rows), city=text(rows), number=number(rows))
    person = _struct(name=text(rows), note=text(rows), home=_with_nulls(random, home))
    preferences = ['{"theme": "dark", "sizes": [1, 2, 3]}', '{"quoted": "a \\"b\\""}', "[]"]
    schema = pa.schema(
        [
            pa.field("id", pa.int64()),
            pa.field("person", person.type),
            pa.field("comment", pa.string()),
            pa.field("lines", pa.list_(lines.type)),
            pa.field("tags", pa.list_(pa.string())),
            pa.field("preferences", pa.string(), metadata=_JSON),
        ]
    )
    columns = [
        pa.array(range(rows)),
        _with_nulls(random, person),
        text(rows),
        pa.ListArray.from_arrays(offsets, lines),
        pa.ListArray.from_arrays(offsets, _words(random, items, _PARTS, most=2)),
        _with_nulls(random, _words(random, rows, preferences)),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _struct(**fields: pa.Array) -> pa.StructArray:
    return pa.StructArray.from_arrays(list(fields.values()), list(fields))


def _words(
    random: np.random.Generator, rows: int, pool: tuple[str, ...] | list[str], most: int = 1
) -> pa.Array:
    """One to `most` of the pool's words, with spaces between them."""
    picks: npt.NDArray[np.int64] = random.integers(0, len(pool), (rows, most))
    counts = random.integers(1, most + 1, rows)
    return pa.array(
        [
            " ".join(pool[pick] for pick in row[:count])
            for row, count in zip(picks.tolist(), counts.tolist(), strict=True)
        ],
        pa.string(),
    )


def _with_nulls(random: np.random.Generator, column: Any) -> pa.Array:
    """The column with three values in ten taken out."""
    places = np.arange(len(column))
    return column.take(pa.array(places, mask=random.random(len(column)) < _NULLS))
