"""What the local Storage Read API refuses in requests before it serves them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from google.cloud.bigquery_storage_v1 import types
from google.protobuf.message import DecodeError

from pipeline.local.bigquery.sessions import ReadRefusal

CODECS = {
    types.ArrowSerializationOptions.CompressionCodec.COMPRESSION_UNSPECIFIED: None,
    types.ArrowSerializationOptions.CompressionCodec.LZ4_FRAME: "lz4",
    types.ArrowSerializationOptions.CompressionCodec.ZSTD: "zstd",
}
"""Compression as it is asked for, and as Arrow names it."""


def invalid(message: str) -> ReadRefusal:
    """A request that is wrong in itself."""
    return ReadRefusal("INVALID_ARGUMENT", f"request failed: {message}")


def parse(kind: Any, data: bytes) -> Any:
    """A request of that kind. Raises ReadRefusal."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise invalid(f"not a {kind.DESCRIPTOR.name}") from error


def check_options(session: Any) -> None:
    """Refuse what would otherwise be silently left undone."""
    options, formats = session.read_options, types.DataFormat
    unsupported = {
        "data_format AVRO; ask for ARROW": session.data_format == formats.AVRO,
        "read_options.sample_percentage": options.HasField("sample_percentage"),
        "read_options.response_compression_codec": options.response_compression_codec != 0,
    }
    for what, asked in unsupported.items():
        if asked:
            raise ReadRefusal("UNIMPLEMENTED", f"the local BigQuery does not support {what}")
    if session.data_format != formats.ARROW:
        raise invalid("data_format must be set to ARROW")
    if options.arrow_serialization_options.buffer_compression not in CODECS:
        raise invalid("unknown buffer_compression")


def check_routing(context: Any, key: str, value: str) -> None:
    """A routing header, if there is one, must name what the request names."""
    for name, text in context.invocation_metadata() or ():
        if name == "x-goog-request-params":
            named = parse_qs(text).get(key)
            if named is not None and named != [value]:
                raise invalid(f"x-goog-request-params has another {key} than the request")
