"""What a Customer.io workspace cuts, ignores or leaves without effect in a payload it accepts.

Warnings for previews, never rejections: a workspace may change its limits, and other
destinations behind the same pipeline have none of them. Pure. Names of attributes are shown,
values never. Source of the limits: Customer.io's Track API, which the pipeline feeds.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping

import orjson

# In bytes of UTF-8; longer ids are invalid rows (`Limits.id_bytes`).
ATTRIBUTE_NAME_BYTES = 150
ATTRIBUTE_VALUE_BYTES = 1_000
ATTRIBUTES = 300
EVENT_NAME_BYTES = 100
EVENT_DATA_BYTES = 100_000
# Older events are kept, but no campaign hears of them.
CAMPAIGN_HOURS = 72

_MOST_NAMED = 3
_MOST_SHOWN = 40  # characters of a name
# What holds the name of an event, and what of it is attributes, by call.
_EVENT_NAME = {"track": "event", "page": "name", "screen": "name"}
_ATTRIBUTES = ("identify", "group")


def workspace_warnings(payload: bytes, now: float) -> tuple[str, ...]:
    """What to tell about one payload, in a fixed order. now: Unix seconds."""
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError:  # a column of type JSON is taken at its word
        return ("the payload is no valid JSON",)
    if not isinstance(message, dict):
        return ("the payload is no JSON object",)
    call, traits = str(message.get("type")), message.get("traits")
    if call in _ATTRIBUTES and isinstance(traits, dict):
        return tuple(_of_attributes(traits))
    if call in _EVENT_NAME:
        return tuple(_of_event(message, now))
    return ()


def _of_attributes(traits: Mapping[str, object]) -> Iterator[str]:
    if len(traits) > ATTRIBUTES:
        yield f"{len(traits):,} attributes: a workspace keeps {ATTRIBUTES} of a person or object"
    long = [name for name in traits if len(name.encode()) > ATTRIBUTE_NAME_BYTES]
    if long:
        yield f"names of over {ATTRIBUTE_NAME_BYTES} bytes: {_listed(long)}"
    large = [name for name, value in traits.items() if _size(value) > ATTRIBUTE_VALUE_BYTES]
    if large:
        yield f"values of over {ATTRIBUTE_VALUE_BYTES:,} bytes: {_listed(large)}"


def _of_event(message: Mapping[str, object], now: float) -> Iterator[str]:
    field = _EVENT_NAME[str(message["type"])]
    if _size(message.get(field)) > EVENT_NAME_BYTES:
        yield f"the {field} has over {EVENT_NAME_BYTES} bytes"
    if _size(message.get("properties")) > EVENT_DATA_BYTES:
        yield f"the properties have over {EVENT_DATA_BYTES:,} bytes"
    at = _unix(message.get("timestamp"))
    if at is not None and now - at > CAMPAIGN_HOURS * 3_600:
        yield f"older than {CAMPAIGN_HOURS} hours: it triggers no campaigns"


def _size(value: object) -> int:
    """Bytes of a text, or of the JSON of anything else; 0 of nothing."""
    if value is None:
        return 0
    return len(value.encode() if isinstance(value, str) else orjson.dumps(value))


def _unix(timestamp: object) -> float | None:
    try:
        at = dt.datetime.fromisoformat(str(timestamp))
        return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _listed(names: list[str]) -> str:
    shown = [n if len(n) <= _MOST_SHOWN else n[: _MOST_SHOWN - 1] + "…" for n in names]
    more = len(shown) - _MOST_NAMED
    return ", ".join(shown[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
