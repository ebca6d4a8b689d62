"""Query parameters as Google's client takes them."""

from __future__ import annotations

from google.cloud.bigquery import (
    ArrayQueryParameter,
    RangeQueryParameter,
    ScalarQueryParameter,
    StructQueryParameter,
)

from pipeline.source.parameters import RANGE, STRUCT, Parameter

GoogleParameter = (
    ArrayQueryParameter | RangeQueryParameter | ScalarQueryParameter | StructQueryParameter
)


def as_google_takes(each: Parameter) -> GoogleParameter:
    """The same parameter, for a job's configuration."""
    value = each.value
    if each.repeated:
        assert isinstance(value, tuple)  # noqa: S101 - what `Parameter` says of ARRAYs
        values = [_struct(None, one) for one in value] if each.kind == STRUCT else list(value)
        return ArrayQueryParameter(each.name, each.kind, values)
    if each.kind == STRUCT:
        return _struct(each.name, value)
    if each.kind.startswith(RANGE):
        assert isinstance(value, tuple)  # noqa: S101 - what `Parameter` says of RANGEs
        start, end = value
        kind = each.kind.removeprefix(RANGE).removesuffix(">")
        return RangeQueryParameter(kind, start, end, name=each.name)
    return ScalarQueryParameter(each.name, each.kind, value)  # type: ignore[arg-type]  # bytes are missing in its annotation


def _struct(name: str | None, fields: object) -> StructQueryParameter:
    assert isinstance(fields, tuple)  # noqa: S101 - what `Parameter` says of STRUCTs
    return StructQueryParameter(name, *map(as_google_takes, fields))
