"""A Destination from its settings: the table of the built-in kinds, and those of packages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.config import (
    CustomerioDestination,
    DestinationSettings,
    FileDestination,
    RudderstackDestination,
    SegmentDestination,
    WebhookDestination,
    plugins,
)
from pipeline.config.destinations import BUILT_IN
from pipeline.destination.customerio import Customerio
from pipeline.destination.file import File, part_limits
from pipeline.destination.rudderstack import Rudderstack
from pipeline.destination.segment import Segment
from pipeline.destination.webhook import Signature, Webhook
from pipeline.errors import ConfigError, PipelineError
from pipeline.model import Action, Envelope, Limits
from pipeline.ports import Destination


def _customerio(name: str, settings: CustomerioDestination, encoding: str) -> Destination:
    return Customerio(
        name=name,
        api_key=settings.api_key.get_secret_value(),
        region=settings.region,
        endpoint=settings.endpoint,
        encoding=encoding,
        strict=settings.strict,
        single=settings.calls == "single",
    )


def _segment(name: str, settings: SegmentDestination, encoding: str) -> Destination:
    return Segment(
        name=name,
        write_key=settings.write_key.get_secret_value(),
        region=settings.region,
        endpoint=settings.endpoint,
        encoding=encoding,
    )


def _rudderstack(name: str, settings: RudderstackDestination, encoding: str) -> Destination:
    return Rudderstack(
        name=name,
        write_key=settings.write_key.get_secret_value(),
        endpoint=settings.endpoint,
        encoding=encoding,
    )


def _webhook(name: str, settings: WebhookDestination, encoding: str) -> Destination:
    prefix, separator, suffix = settings.envelope.parts
    lines = separator == b"\n"
    kind = settings.content_type or ("application/x-ndjson" if lines else "application/json")
    headers = {key: value.get_secret_value() for key, value in settings.headers.items()}
    signed = settings.signature
    return Webhook(
        name=name,
        url=settings.url,
        method=settings.method,
        headers={"Content-Type": kind, **headers},
        limits=Limits(
            payload_bytes=settings.payload_bytes or settings.most_payload_bytes,
            batch_bytes=settings.batch_bytes,
            batch_rows=settings.batch_rows,
        ),
        envelope=Envelope(prefix=prefix, separator=separator, suffix=suffix),
        verdicts={status: Action(word) for status, word in settings.verdicts.items()},
        signature=Signature(
            secret=signed.secret.get_secret_value().encode(),
            header=signed.header,
            prefix=signed.prefix,
            timestamp_header=signed.timestamp_header,
            clock=time.time,
        )
        if signed
        else None,
        encoding=encoding,
    )


def _file(name: str, settings: FileDestination, encoding: str) -> Destination:  # noqa: ARG001 - the table's shape
    if settings.parts:
        return File(name=name, limits=part_limits(settings.file_bytes))
    return File(name=name)


_MAKERS: Mapping[str, Callable[[str, Any, str], Destination]] = {
    "customerio": _customerio,
    "segment": _segment,
    "rudderstack": _rudderstack,
    "webhook": _webhook,
    "file": _file,
}


def destination_of(name: str, settings: DestinationSettings, encoding: str) -> Destination:
    """The Destination of that name. encoding: of request bodies, identity or gzip.

    Raises ConfigError, naming the package, when a package's own kind fails.
    """
    kind = settings.type
    if kind in _MAKERS:
        return _MAKERS[kind](name, settings, encoding)
    added = plugins.find(kind, BUILT_IN)
    if added is None:  # made in code, from a model that no entry point names
        raise ConfigError(f"destinations.{name}: no installed package adds `type: {kind}`.")
    try:
        made = added.make(name, settings, encoding)
        flaw = _flaw(made)
    except PipelineError:
        raise
    except Exception as error:
        raise _broken(name, kind, type(error).__name__) from error
    if flaw is not None:
        raise _broken(name, kind, flaw)
    return made


def _flaw(made: Destination) -> str | None:
    """What would only show in the middle of a run."""
    limits, envelope = made.limits, made.envelope
    if len(envelope.separator) != 1:
        return "its separator is not one byte"
    room = limits.batch_bytes - len(envelope.prefix) - len(envelope.suffix)
    if limits.payload_bytes > room or limits.batch_rows < 1:
        return "its batch has no room for its largest payload"
    return None


def _broken(name: str, kind: str, what: str) -> ConfigError:
    return ConfigError(
        f"destinations.{name}: {plugins.package_of(kind)}, which adds `type: {kind}`, fails "
        f"({what}). Upgrade it, or tell its author."
    )
