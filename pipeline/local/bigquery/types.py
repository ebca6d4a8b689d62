"""BigQuery's column types, and their names in DuckDB, Arrow and REST.

A Column is the one description; everything else is derived from it and read back into it. Types
that DuckDB does not have are structs with reserved field names ($geography, ...), so that DuckDB's
own binder carries a BigQuery type through every expression, view and table: a result's BigQuery
schema is a function of its DuckDB types. Sources: BigQuery's REST reference (TableFieldSchema) and
the Storage Read API's Arrow schemas as the official client expects them. INTERVAL as Arrow's
month_day_nano is inferred. Knows no connection and no SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.local.bigquery.errors import LocalError, unsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column or field.

    kind: BigQuery's SQL name of the type; for an ARRAY, of its element.
    fields: a STRUCT's fields; a RANGE's single element type.
    """

    name: str
    kind: str
    repeated: bool = False
    required: bool = False
    fields: tuple[Column, ...] = ()

    @property
    def element(self) -> Column:
        """One element of an ARRAY column."""
        return replace(self, repeated=False, required=False)


# BigQuery's name -> DuckDB's type and Arrow's type, of what is neither STRUCT nor RANGE.
# BIGNUMERIC's two halves have the value's sign, so that DuckDB's order is the numbers' order.
SCALARS: Mapping[str, tuple[str, pa.DataType]] = {
    "INT64": ("BIGINT", pa.int64()),
    "FLOAT64": ("DOUBLE", pa.float64()),
    "NUMERIC": ("DECIMAL(38, 9)", pa.decimal128(38, 9)),
    "BIGNUMERIC": (
        'STRUCT("$bignumeric" DECIMAL(38, 0), "$fraction" DECIMAL(38, 38))',
        pa.decimal256(76, 38),
    ),
    "BOOL": ("BOOLEAN", pa.bool_()),
    "STRING": ("VARCHAR", pa.string()),
    "BYTES": ("BLOB", pa.binary()),
    "DATE": ("DATE", pa.date32()),
    "TIME": ("TIME", pa.time64("us")),
    "DATETIME": ("TIMESTAMP", pa.timestamp("us")),
    "TIMESTAMP": ("TIMESTAMPTZ", pa.timestamp("us", tz="UTC")),
    "JSON": ("JSON", pa.string()),
    "GEOGRAPHY": ('STRUCT("$geography" VARCHAR)', pa.string()),
    "INTERVAL": ("INTERVAL", pa.month_day_nano_interval()),
}

EXTENSION = b"ARROW:extension:name"
EXTENSION_OF = {
    "DATETIME": b"google:sqlType:datetime",
    "JSON": b"google:sqlType:json",
    "GEOGRAPHY": b"google:sqlType:geography",
}
_KIND_OF_EXTENSION = {name: kind for kind, name in EXTENSION_OF.items()}

_FROM_DUCKDB = {
    **dict.fromkeys(
        ("tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint"), "INT64"
    ),
    **dict.fromkeys(("uinteger", "ubigint", "uhugeint"), "INT64"),
    "null": "INT64",  # BigQuery's own choice for an untyped NULL
    **dict.fromkeys(("float", "double"), "FLOAT64"),
    "decimal": "NUMERIC",
    "boolean": "BOOL",
    **dict.fromkeys(("varchar", "uuid", "enum"), "STRING"),
    "blob": "BYTES",
    "date": "DATE",
    "time": "TIME",
    **dict.fromkeys(("timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"), "DATETIME"),
    "timestamp with time zone": "TIMESTAMP",
    "interval": "INTERVAL",
}

_REST_SYNONYMS = {
    "INTEGER": "INT64",
    "FLOAT": "FLOAT64",
    "BOOLEAN": "BOOL",
    "RECORD": "STRUCT",
    "DECIMAL": "NUMERIC",
    "BIGDECIMAL": "BIGNUMERIC",
}
# What BigQuery itself answers in a TableFieldSchema.
_REST_NAMES = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}


def quoted(name: str) -> str:
    """A name as a DuckDB identifier."""
    return '"' + name.replace('"', '""') + '"'


# ------------------------------------------------------------------------------- DuckDB


def from_duckdb(name: str, dtype: Any) -> Column:
    """The Column of a DuckDB type (a DuckDBPyType), by its structure.

    Raises LocalError for what has no BigQuery type.
    """
    if dtype.id in ("list", "array"):
        element = from_duckdb(name, dtype.children[0][1])
        if element.repeated:
            raise LocalError(
                "invalidQuery",
                "Cannot construct array with element type ARRAY because nested arrays are not "
                "supported",
            )
        return replace(element, repeated=True)
    if dtype.id == "struct":
        children = list(dtype.children)
        tag = children[0][0]
        if tag == "$geography":
            return Column(name=name, kind="GEOGRAPHY")
        if tag == "$bignumeric":
            return Column(name=name, kind="BIGNUMERIC")
        if tag == "$start":
            element = from_duckdb("", children[0][1])
            return Column(name=name, kind="RANGE", fields=(element,))
        fields = tuple(from_duckdb(child, kind) for child, kind in children)
        return Column(name=name, kind="STRUCT", fields=fields)
    if dtype.id == "varchar" and str(dtype) == "JSON":
        return Column(name=name, kind="JSON")
    kind = _FROM_DUCKDB.get(dtype.id)
    if kind is None:
        raise unsupported(f"a result of DuckDB type {dtype} (column {name})")
    return Column(name=name, kind=kind)


def duckdb_type(column: Column) -> str:
    """The DuckDB type that stores the column."""
    if column.repeated:
        return duckdb_type(column.element) + "[]"
    if column.kind == "STRUCT":
        fields = ", ".join(f"{quoted(f.name)} {duckdb_type(f)}" for f in column.fields)
        return f"STRUCT({fields})"
    if column.kind == "RANGE":
        element = duckdb_type(column.fields[0])
        return f'STRUCT("$start" {element}, "$end" {element})'
    return SCALARS[column.kind][0]


# ------------------------------------------------------------------------------- Arrow


def arrow_type(column: Column) -> pa.DataType:
    """The Arrow type that the Storage Read API sends."""
    if column.repeated:
        return pa.list_(arrow_field(replace(column.element, name="item")))
    if column.kind == "STRUCT":
        return pa.struct([arrow_field(field) for field in column.fields])
    if column.kind == "RANGE":
        return pa.struct(
            [arrow_field(replace(column.fields[0], name=name)) for name in ("start", "end")]
        )
    return SCALARS[column.kind][1]


def arrow_field(column: Column) -> pa.Field:
    """The Arrow field, with the metadata that tells DATETIME, JSON and GEOGRAPHY apart.

    An ARRAY carries the metadata on its own field and on its items'.
    """
    extension = EXTENSION_OF.get(column.kind)
    return pa.field(
        column.name,
        arrow_type(column),
        nullable=not (column.required or column.repeated),
        metadata={EXTENSION: extension} if extension else None,
    )


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of a table."""
    return pa.schema([arrow_field(column) for column in columns])


def from_arrow(field: pa.Field) -> Column:
    """The Column of an Arrow field: any Arrow type that has a BigQuery counterpart.

    Raises LocalError for the others.
    """
    name, dtype = field.name, field.type
    required = not field.nullable
    if pa.types.is_dictionary(dtype):
        return from_arrow(field.with_type(dtype.value_type))
    if (
        pa.types.is_list(dtype)
        or pa.types.is_large_list(dtype)
        or pa.types.is_fixed_size_list(dtype)
    ):
        element = from_arrow(dtype.value_field)
        outer = _KIND_OF_EXTENSION.get((field.metadata or {}).get(EXTENSION, b""))
        kind = outer or element.kind
        return replace(element, name=name, kind=kind, repeated=True, required=False)
    if pa.types.is_struct(dtype):
        fields = tuple(from_arrow(dtype.field(i)) for i in range(dtype.num_fields))
        ranged = [f.name for f in fields] == ["start", "end"] and len({f.kind for f in fields}) == 1
        if ranged and fields[0].kind in ("DATE", "DATETIME", "TIMESTAMP"):
            bound = Column(name="", kind=fields[0].kind)
            return Column(name=name, kind="RANGE", required=required, fields=(bound,))
        return Column(name=name, kind="STRUCT", required=required, fields=fields)
    known = _KIND_OF_EXTENSION.get((field.metadata or {}).get(EXTENSION, b"")) or _arrow_kind(dtype)
    if known is None:
        raise unsupported(f"Arrow type {dtype} (column {name})")
    return Column(name=name, kind=known, required=required)


def _arrow_kind(dtype: pa.DataType) -> str | None:
    """The type of an Arrow type that needs no metadata and has no children."""
    if pa.types.is_timestamp(dtype):
        return "TIMESTAMP" if dtype.tz else "DATETIME"
    if pa.types.is_decimal256(dtype):
        return "BIGNUMERIC"
    if pa.types.is_decimal(dtype):
        return "NUMERIC" if dtype.scale <= 9 else "BIGNUMERIC"
    cases = (
        (pa.types.is_boolean, "BOOL"),
        (pa.types.is_integer, "INT64"),
        (pa.types.is_null, "INT64"),
        (pa.types.is_floating, "FLOAT64"),
        (pa.types.is_string, "STRING"),
        (pa.types.is_large_string, "STRING"),
        (pa.types.is_string_view, "STRING"),
        (pa.types.is_binary, "BYTES"),
        (pa.types.is_large_binary, "BYTES"),
        (pa.types.is_binary_view, "BYTES"),
        (pa.types.is_fixed_size_binary, "BYTES"),
        (pa.types.is_date, "DATE"),
        (pa.types.is_time, "TIME"),
        (pa.types.is_interval, "INTERVAL"),
    )
    return next((kind for test, kind in cases if test(dtype)), None)


# ------------------------------------------------------------------------------- REST and SQL


def to_rest(column: Column) -> dict[str, object]:
    """The column as a TableFieldSchema."""
    mode = "REPEATED" if column.repeated else "REQUIRED" if column.required else "NULLABLE"
    answer: dict[str, object] = {
        "name": column.name,
        "type": _REST_NAMES.get(column.kind, column.kind),
        "mode": mode,
    }
    if column.kind == "STRUCT":
        answer["fields"] = [to_rest(field) for field in column.fields]
    if column.kind == "RANGE":
        answer["rangeElementType"] = {"type": column.fields[0].kind}
    return answer


def from_rest(schema: Mapping[str, Any]) -> Column:
    """The Column of a TableFieldSchema. Raises LocalError for an unknown type."""
    kind = str(schema.get("type", "")).upper()
    kind = _REST_SYNONYMS.get(kind, kind)
    if kind == "RANGE":
        element = str((schema.get("rangeElementType") or {}).get("type", "")).upper()
        fields: tuple[Column, ...] = (Column(name="", kind=element),)
    else:
        fields = tuple(from_rest(field) for field in schema.get("fields") or ())
    if kind not in SCALARS and kind not in ("STRUCT", "RANGE"):
        raise LocalError("invalid", f"Invalid value for type: {kind} is not a valid value")
    mode = str(schema.get("mode") or "NULLABLE").upper()
    return Column(
        name=str(schema["name"]),
        kind=kind,
        repeated=mode == "REPEATED",
        required=mode == "REQUIRED",
        fields=fields,
    )


def sql_type(column: Column) -> str:
    """The type in BigQuery's SQL, as in STRUCT<a INT64, b ARRAY<STRING>>."""
    if column.repeated:
        return f"ARRAY<{sql_type(column.element)}>"
    if column.kind == "STRUCT":
        return f"STRUCT<{', '.join(f'`{f.name}` {sql_type(f)}' for f in column.fields)}>"
    if column.kind == "RANGE":
        return f"RANGE<{column.fields[0].kind}>"
    return column.kind


def select(columns: Sequence[Column], paths: Sequence[str]) -> tuple[Column, ...]:
    """The columns, and of STRUCTs the fields, that `paths` name; all if there are none.

    Order is the table's; names match in any case. Raises LocalError for a path that leads nowhere.
    """
    if not paths:
        return tuple(columns)
    wanted: dict[str, list[str]] = {}
    for path in paths:
        head, _, rest = path.partition(".")
        wanted.setdefault(head.lower(), []).append(rest)
    chosen = []
    for column in columns:
        below = wanted.pop(column.name.lower(), None)
        if below is None:
            continue
        if all(below) and column.kind == "STRUCT":
            chosen.append(replace(column, fields=select(column.fields, below)))
        elif any(below) and column.kind != "STRUCT":
            wanted[column.name] = below
        else:
            chosen.append(column)
    if wanted:
        names = ", ".join(sorted(wanted))
        raise LocalError(
            "invalid",
            f"request failed: The following selected fields do not exist in the table schema: "
            f"{names}",
        )
    return tuple(chosen)
