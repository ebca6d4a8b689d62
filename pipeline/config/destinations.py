"""The destinations' part of the configuration: each kind's keys with their descriptions.

The built-in kinds are the union that `retl schema` shows; kinds of installed packages (plugins.py)
are taken as well. Rules: as in models.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    SerializeAsAny,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pipeline.config import http_values, plugins, values
from pipeline.config.base import DestinationSettings, HttpEndpoint, Model
from pipeline.config.faults import wrong
from pipeline.config.units import Size, Whole
from pipeline.destination.customerio import key_region

_ENDPOINT = (
    "URL to send to instead of the region's, for a proxy or a local server. "
    "Plain http only on loopback."
)
WriteKey = Annotated[SecretStr, AfterValidator(http_values.write_key)]
Header = Annotated[str, AfterValidator(http_values.header_name)]


class CustomerioDestination(DestinationSettings):
    """Customer.io's Data Pipelines API."""

    PLACE: ClassVar[frozenset[str]] = DestinationSettings.PLACE | {"calls"}

    type: Literal["customerio"] = Field(description="The kind of destination.")
    region: Literal["us", "eu"] = Field(
        default="us",
        description="Region of the Customer.io account. With the wrong one the key is refused, "
        "or rows are accepted and dropped. A key that names its region (`sk_eu_...`) is sent "
        "there, whatever is said here.",
    )
    api_key: Annotated[SecretStr, AfterValidator(values.api_key)] = Field(
        description="API key of the Data Pipelines source, normally `${CUSTOMERIO_API_KEY}`."
    )
    calls: Literal["batch", "single"] = Field(
        default="batch",
        description="`batch` sends many rows in a request to /batch; `single` one row in a "
        "request to the endpoint of its call (/identify, /track, ...), which takes far longer.",
    )
    strict: bool = Field(
        default=True,
        description="Have faulty rows refused (`X-Strict-Mode: 1`), so that they become dead "
        "letters. Without it they are answered 200 and dropped.",
    )
    endpoint: HttpEndpoint | None = Field(default=None, description=_ENDPOINT)

    def notes(self) -> tuple[str, ...]:
        """A key of another region than the one that is written down."""
        named = key_region(self.api_key.get_secret_value())
        if named in {None, self.region} or "region" not in self.model_fields_set:
            return ()
        there = "`endpoint` decides where rows go" if self.endpoint else f"rows go to `{named}`"
        what = f"its key is one of region `{named}`, and `region` says `{self.region}`: {there}."
        return (f"{what} Correct the key or `region`.",)


class SegmentDestination(DestinationSettings):
    """Segment's HTTP Tracking API."""

    type: Literal["segment"] = Field(description="The kind of destination.")
    region: Literal["us", "eu"] = Field(
        default="us", description="Region of the Segment workspace: `us` (Oregon), `eu` (Dublin)."
    )
    write_key: WriteKey = Field(
        description="Write key of the source in Segment, normally `${SEGMENT_WRITE_KEY}`."
    )
    endpoint: HttpEndpoint | None = Field(default=None, description=_ENDPOINT)


class RudderstackDestination(DestinationSettings):
    """RudderStack's HTTP API."""

    type: Literal["rudderstack"] = Field(description="The kind of destination.")
    endpoint: HttpEndpoint = Field(
        description="URL of your data plane, without `/v1`: "
        "`https://NAME.dataplane.rudderstack.com`. Plain http only on loopback."
    )
    write_key: WriteKey = Field(
        description="Write key of the source in RudderStack, normally `${RUDDERSTACK_WRITE_KEY}`."
    )


class EnvelopeConfig(Model):
    """What stands around and between the payloads of a request. `array` or `ndjson` is short."""

    key: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="The body is an object with the payloads as an array under this key.",
    )
    prefix: str = Field(default="", description="What the body begins with.")
    separator: Annotated[str, AfterValidator(http_values.separator)] = Field(
        default=",", description="The single ASCII character between payloads."
    )
    suffix: str = Field(default="", description="What the body ends with.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.key is not None and self.model_fields_set != {"key"}:
            raise wrong("`key` makes the whole envelope.", "Remove it, or everything beside it.")
        return self

    @property
    def parts(self) -> tuple[bytes, bytes, bytes]:
        """Prefix, separator and suffix, in UTF-8."""
        prefix, suffix = self.prefix, self.suffix
        if self.key is not None:
            prefix, suffix = f"{{{json.dumps(self.key, ensure_ascii=False)}:[", "]}"
        return prefix.encode(), self.separator.encode(), suffix.encode()


class SignatureConfig(Model):
    """HMAC-SHA-256 in hex over the body, before any compression."""

    secret: Annotated[SecretStr, AfterValidator(http_values.secret_text)] = Field(
        description="The secret that the receiver has too, normally `${NAME}`."
    )
    header: Header = Field(
        default="X-Signature", description="The header that takes the signature."
    )
    prefix: Annotated[str, AfterValidator(http_values.signature_prefix)] = Field(
        default="sha256=", description="What stands before the digits."
    )
    timestamp_header: Header | None = Field(
        default=None,
        description="A header that takes the time in Unix seconds; what is signed is then "
        "`<seconds>.<body>`, so that a receiver can refuse what is old.",
    )


class WebhookDestination(DestinationSettings):
    """Any HTTP endpoint that takes JSON."""

    PLACE: ClassVar[frozenset[str]] = DestinationSettings.PLACE | {"method", "envelope"}

    type: Literal["webhook"] = Field(description="The kind of destination.")
    url: Annotated[str, AfterValidator(http_values.webhook_url)] = Field(
        repr=False,
        description="Where requests go, with a query if need be. Plain http only on loopback.",
    )
    method: Literal["POST", "PUT"] = Field(default="POST", description="The method of requests.")
    headers: Annotated[dict[str, SecretStr], AfterValidator(http_values.headers)] = Field(
        default_factory=dict,
        description="Headers of every request, such as `Authorization: Bearer ${TOKEN}`; all of "
        "them are treated as secrets.",
    )
    content_type: Annotated[str, AfterValidator(http_values.content_type)] | None = Field(
        default=None,
        description="Left out: `application/json`, or `application/x-ndjson` for lines.",
    )
    envelope: Annotated[
        EnvelopeConfig,
        BeforeValidator(
            http_values.envelope,
            json_schema_input_type=Literal["array", "ndjson"] | EnvelopeConfig,
        ),
    ] = Field(
        default_factory=lambda: EnvelopeConfig(prefix="[", suffix="]"),
        description="How payloads become a body: `array`, `ndjson` (a payload a line), "
        "`{key: events}` or `{prefix: ..., separator: ..., suffix: ...}`. Left out: `array`.",
    )
    batch_rows: Whole = Field(
        default=500, ge=1, le=100_000, description="The most rows of one request."
    )
    batch_bytes: Size = Field(
        default=10**6,
        ge=1_000,
        le=100 * 10**6,
        description="The largest request body, before compression.",
    )
    payload_bytes: Annotated[Size, Field(ge=1)] | None = Field(
        default=None,
        description="The largest row; a larger one is invalid. Left out: what fits in a request.",
    )
    signature: SignatureConfig | None = Field(
        default=None, description="Signs every request. Left out: none is signed."
    )
    verdicts: Annotated[
        dict[str, Literal["delivered", "retry", "reject", "split", "halt"]],
        BeforeValidator(http_values.verdicts),
    ] = Field(
        default_factory=dict,
        description="What answers mean, by status or class, where it differs from the table in "
        "docs/destinations.md: `{409: delivered, 404: reject, 4xx: split}`. A status goes before "
        "its class.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.payload_bytes is not None and self.payload_bytes > self.most_payload_bytes:
            what = "`payload_bytes` and the envelope do not fit in `batch_bytes`."
            raise wrong(what, "Raise `batch_bytes`, or leave `payload_bytes` out.")
        taken = {name.lower() for name in self.headers}
        signed = self.signature
        own = [signed.header, signed.timestamp_header] if signed else []
        names = [name.lower() for name in own if name is not None]
        if taken & {*names} or len({*names}) != len(names):
            raise wrong("A header of `signature` is given twice.", "Choose another name for it.")
        return self

    @property
    def most_payload_bytes(self) -> int:
        """What a request has room for beside its envelope."""
        prefix, _, suffix = self.envelope.parts
        return self.batch_bytes - len(prefix) - len(suffix)


class FileDestination(DestinationSettings):
    """Files of payloads, on this machine or in an object store."""

    PLACE: ClassVar[frozenset[str]] = DestinationSettings.PLACE | {"format", "file_bytes"}

    type: Literal["file"] = Field(description="The kind of destination.")
    path: Annotated[str, AfterValidator(http_values.file_path)] = Field(
        description="The file to append to, one payload per line; several syncs may share it. With "
        "`format: parquet`, or as a URI (`gs://`, `s3://`): the folder that gets a file for every "
        "batch."
    )
    format: Literal["ndjson", "parquet"] = Field(
        default="ndjson",
        description="`ndjson` has a payload a line; `parquet` the columns messageId, type, userId, "
        "anonymousId, groupId, and payload as JSON text.",
    )
    file_bytes: Size = Field(
        default=16 * 10**6,
        ge=100_000,
        le=10**9,
        description="The largest file of a folder, in bytes of JSON lines. Each stream that is "
        "read holds one in memory.",
    )

    @property
    def parts(self) -> bool:
        """Whether `path` is a folder of files, instead of one that grows."""
        return self.format == "parquet" or "://" in self.path


BuiltIn = (
    CustomerioDestination
    | SegmentDestination
    | RudderstackDestination
    | WebhookDestination
    | FileDestination
)
BUILT_IN: Mapping[str, type[DestinationSettings]] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(BuiltIn)
}
"""The kinds that come with retl."""


def _of_any_kind(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """The built-in kinds, or one that a package adds."""
    if isinstance(value, DestinationSettings):
        return value
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(kind, str):
        return handler(value)
    added = plugins.find(kind, BUILT_IN)
    if added is not None:
        # A union, so that the place of a fault has the kind in it, as with built-in ones.
        union: Any = added.settings | FileDestination
        adapter: TypeAdapter[Any] = TypeAdapter(Annotated[union, Field(discriminator="type")])
        return adapter.validate_python(value)
    if kind not in BUILT_IN and plugins.names():
        known = ", ".join(repr(name) for name in (*BUILT_IN, *sorted(plugins.names())))
        context = {"tag": kind, "expected_tags": known}
        raise PydanticCustomError("union_tag_invalid", "must be one of {expected_tags}", context)
    return handler(value)


AnyDestination = Annotated[
    BuiltIn, Field(discriminator="type"), WrapValidator(_of_any_kind), SerializeAsAny()
]
