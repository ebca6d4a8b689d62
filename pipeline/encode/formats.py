"""`as:` of a column: a form of its own for its values, where the type's is not the right one.

Says which types a format fits before anything is sent. What only the values can tell (text that
should be a number) is checked later, in `claims.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.claims import Claim
from pipeline.encode.columns import ISO, JSON_TYPE, QUOTED, Converter, converter, is_object, is_text
from pipeline.encode.scalars import unix_to_iso
from pipeline.errors import ConfigError

_SQL_TYPE = b"ARROW:extension:name"
_TIMES = "TIMESTAMP, DATETIME and DATE, and TIMESTAMPs and DATETIMEs in ARRAYs and STRUCTs"
FORMATS: Mapping[str, str] = {
    "unix": f"INT64, {_TIMES}",
    "unix_ms": _TIMES,
    "iso8601": f"INT64 (Unix seconds), {_TIMES}",
    "string": "every type but ARRAY, STRUCT and RANGE",
    "number": "INT64, FLOAT64, NUMERIC, BIGNUMERIC, BOOL and STRING",
    "json": "STRING and JSON",
}
"""Format -> the types that it fits."""

_MIDNIGHT = ('"', 'T00:00:00Z"')
# Years 1 to 9999 in Unix seconds: what BigQuery's TIMESTAMP, and four digits, can hold.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


def formatted(field: pa.Field, form: str) -> tuple[Converter, Claim | None]:
    """The Converter of a column whose format is `form`, and what its text has to prove.

    Raises ConfigError for a type that the format does not fit, and for one without a JSON form.
    """
    plain, unwrap = _unwrapped(field)
    found = _FORMS[form](plain, form)
    if found is None:
        if form not in _TIMELY:
            converter(field)  # which says so where no format would help
        raise ConfigError(
            f"the column {field.name} is a {field.type}, which `as: {form}` does not fit: "
            f"that is for {FORMATS[form]}."
        )
    inner, claim = found
    return inner.after(unwrap), claim


def inside(convert: Converter, place: int) -> Converter:
    """The Converter of a STRUCT's field, run on the STRUCT's column; null where that is."""
    return convert.after(lambda column: pc.struct_field(column, place))


_Found = tuple[Converter, Claim | None] | None
_TIMELY = {"unix", "unix_ms", "iso8601"}


def _unwrapped(field: pa.Field) -> tuple[pa.Field, Callable[[pa.Array], pa.Array]]:
    """The field without its extension type and dictionary, and how to undress its columns."""
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        metadata = {_SQL_TYPE: JSON_TYPE} if is_object(field) else None
        plain = pa.field(field.name, kind.storage_type, metadata=metadata)
        return plain, lambda column: column.storage
    if pa.types.is_dictionary(kind):
        plain = pa.field(field.name, kind.value_type, metadata=field.metadata)
        return plain, lambda column: column.dictionary_decode()
    return field, lambda column: column


def _time(field: pa.Field, form: str) -> _Found:
    kind = field.type
    if pa.types.is_date(kind) and form == "iso8601":
        return Converter(lambda column: pc.cast(column, pa.string()), _MIDNIGHT), None
    if pa.types.is_date(kind):
        midnight = pa.timestamp("s")
        at = converter(pa.field(field.name, midnight), times=form)
        return at.after(lambda column: column.cast(midnight)), None
    if pa.types.is_integer(kind) and form == "iso8601":
        return SECONDS_TO_ISO, Claim.SECONDS
    if pa.types.is_integer(kind) and form == "unix":
        return converter(field), None
    if _holds_times(kind):
        return converter(field, times=form), None
    return None


def _holds_times(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_struct(kind):
        return any(_holds_times(child.type) for child in kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _holds_times(kind.value_type)
    return bool(types.is_timestamp(kind) or types.is_null(kind))


def _seconds_to_iso(column: pa.Array) -> pa.StringArray:
    """Empty for what is no Unix second of the years 1 to 9999."""
    if pa.types.is_uint64(column.type):  # beside which a negative number has no place
        known = pc.less_equal(column, pa.scalar(_LAST_SECOND, pa.uint64()))
    else:
        known = pc.and_(
            pc.greater_equal(column, _FIRST_SECOND), pc.less_equal(column, _LAST_SECOND)
        )
    if pc.all(known, min_count=0).as_py():
        return unix_to_iso(column)
    text = unix_to_iso(pc.if_else(known, column, pa.scalar(None, column.type)))
    return pc.if_else(pc.invert(known), pa.scalar(""), text)


SECONDS_TO_ISO = Converter(_seconds_to_iso, ISO)
"""INT64 Unix seconds as ISO 8601; their rows have to prove that they are such."""


def _string(field: pa.Field, _form: str) -> _Found:
    if pa.types.is_nested(field.type):
        return None
    bare = pa.field(field.name, field.type)  # JSON is text too
    inner = converter(bare, times="iso8601")
    return inner.within(QUOTED), None


def _number(field: pa.Field, _form: str) -> _Found:
    kind, types = field.type, pa.types
    if types.is_boolean(kind):
        return Converter(lambda column: pc.cast(column.cast(pa.int8()), pa.string())), None
    if is_text(kind) and not is_object(field):
        return Converter(lambda column: column.cast(pa.string())), Claim.NUMBER
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return converter(field), None
    return (converter(field), None) if types.is_null(kind) else None


def _json(field: pa.Field, _form: str) -> _Found:
    if is_text(field.type):
        return Converter(lambda column: column.cast(pa.string())), Claim.JSON
    return (converter(field), None) if pa.types.is_null(field.type) else None


_FORMS: Mapping[str, Callable[[pa.Field, str], _Found]] = {
    "unix": _time,
    "unix_ms": _time,
    "iso8601": _time,
    "string": _string,
    "number": _number,
    "json": _json,
}
