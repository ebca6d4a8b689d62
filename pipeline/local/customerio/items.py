"""Request bodies to calls, and what the API would find wrong with a call.

Pure: bytes in, values out. A call is kept as the exact bytes that were sent, because a number
parsed and printed again may be another number. Source of the rules: the published OpenAPI of
the Data Pipelines API; where that is silent, the stricter reading, so that a fault of the
sender shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

CALLS = ("identify", "track", "page", "screen", "group", "alias")

_OPEN, _CLOSE = b'{"batch":[', b"]}"
_STRINGS = ("messageId", "userId", "anonymousId", "groupId", "previousId", "event", "name")
_OBJECTS = ("traits", "properties", "context", "integrations")
_TIMES = ("timestamp", "originalTimestamp", "sentAt")


class MalformedError(ValueError):
    """The body is not the JSON that the endpoint takes; the text says why."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """The calls of one request: `lines[i]` are the bytes of `items[i]`, without a line break."""

    lines: list[bytes]
    items: list[Any]


def parse_batch(body: bytes) -> Parsed:
    """Read `{"batch":[...]}`. Raises MalformedError."""
    try:
        return _split(body) or _walk(body)
    except RecursionError:
        raise MalformedError("nested too deeply") from None


def parse_single(call: str, body: bytes) -> Parsed:
    """Read the body of /v1/<call>; the line gets the `type` it has in a batch."""
    item = _loads(body)
    line = _one_line(body.strip())
    if isinstance(item, dict) and "type" not in item:
        rest = line[1:].lstrip()
        comma = b"" if rest.startswith(b"}") else b","
        line = b'{"type":"' + call.encode() + b'"' + comma + rest
        item = {"type": call, **item}
    return Parsed([line], [item])


def fault_in(item: Any) -> str | None:
    """What is wrong with a call, as `field: text`, or None. Never repeats its content."""
    if type(item) is not dict:
        return "must be an object"
    get = item.get
    call = get("type")
    if type(call) is not str or call not in _CHECKS:
        return f"type: must be one of {', '.join(CALLS)}"
    for name in _STRINGS:
        if (value := get(name)) is not None and type(value) is not str:
            return f"{name}: must be a string"
    for name in _OBJECTS:
        if (value := get(name)) is not None and type(value) is not dict:
            return f"{name}: must be an object"
    for name in _TIMES:
        if (value := get(name)) is not None and not _is_time(value):
            return f"{name}: must be an ISO 8601 date-time"
    return _CHECKS[call](item)


def _is_time(value: Any) -> bool:
    if type(value) is not str or len(value) < 10:
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _identify(item: Mapping[str, Any]) -> str | None:
    if item.get("userId") or item.get("anonymousId"):
        return None
    # Documented: an empty userId is accepted where traits.email says who it is.
    if item.get("userId") == "" and (item.get("traits") or {}).get("email"):
        return None
    return "userId: required, or anonymousId, or an empty userId with traits.email"


def _track(item: Mapping[str, Any]) -> str | None:
    if not item.get("event"):
        return "event: required"
    if item.get("userId") or item.get("anonymousId") or item.get("groupId"):
        return None
    return "userId: required, or anonymousId or groupId"


def _view(item: Mapping[str, Any]) -> str | None:
    if item.get("userId") or item.get("anonymousId"):
        return None
    return "userId: required, or anonymousId"


def _group(item: Mapping[str, Any]) -> str | None:
    return None if item.get("groupId") else "groupId: required"


def _alias(item: Mapping[str, Any]) -> str | None:
    if not item.get("previousId"):
        return "previousId: required"
    return None if item.get("userId") else "userId: required"


_CHECKS: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = {
    "identify": _identify,
    "track": _track,
    "page": _view,
    "screen": _view,
    "group": _group,
    "alias": _alias,
}


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"malformed JSON at byte {error.pos}") from None


def _split(body: bytes) -> Parsed | None:
    """Split at what looks like the seam of two calls; None when that was no seam.

    If every piece is an object by itself, the pieces are the elements, whatever the guess was.
    """
    if not (body.startswith(_OPEN + b"{") and body.endswith(b"}" + _CLOSE)):
        return None
    if b"\n" in body or b"\r" in body:
        return None
    first_key = body[len(_OPEN) : body.find(b":", len(_OPEN)) + 1]
    seam, cut = b"}," + first_key, b"}\n" + first_key
    lines = body[len(_OPEN) : -len(_CLOSE)].replace(seam, cut).split(b"\n")
    try:
        return Parsed(lines, list(map(orjson.loads, lines)))
    except orjson.JSONDecodeError:
        return None


def _walk(body: bytes) -> Parsed:
    """Find the elements of any well-formed batch; several times slower than `_split`."""
    document = _loads(body)
    if not isinstance(document, dict) or not isinstance(document.get("batch"), list):
        raise MalformedError("batch: must be a list of calls")
    items: list[Any] = document["batch"]
    text = body.decode()
    at = _next(text, 0) + 1
    lines: list[bytes] = []
    while text[at := _next(text, at)] != "}":
        key, at = _DECODER.raw_decode(text, _next(text, at + (text[at] == ",")))
        at = _next(text, _next(text, at) + 1)
        if key == "batch" and text[at] == "[":
            lines, at = _elements(text, at + 1)
        else:
            _, at = _DECODER.raw_decode(text, at)
    if len(lines) != len(items):  # pragma: no cover  # two readings of one text that differ
        raise MalformedError("batch: not understood")
    return Parsed(lines, items)


def _elements(text: str, at: int) -> tuple[list[bytes], int]:
    """The elements of the array whose inside begins at `at`, and where it ends."""
    lines: list[bytes] = []
    while text[at := _next(text, at)] != "]":
        at = _next(text, at + (text[at] == ","))
        _, end = _DECODER.raw_decode(text, at)
        lines.append(_one_line(text[at:end].encode()))
        at = end
    return lines, at + 1


def _next(text: str, at: int) -> int:
    """The first place from `at` on that is no JSON white space."""
    while text[at] in " \t\n\r":
        at += 1
    return at


def _one_line(line: bytes) -> bytes:
    # Inside JSON a raw line break is white space: a blank says the same in as many bytes.
    return line.replace(b"\n", b" ").replace(b"\r", b" ")


# Numbers stay text: only where they end matters, and huge ones would be refused.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
