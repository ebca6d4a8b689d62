"""What previews look at in a payload, for more than one destination. Never shows a value."""

from __future__ import annotations

import orjson

_IDS = ("userId", "anonymousId")


def ids_missing(payload: bytes, consequence: str) -> tuple[str, ...]:
    """A warning for a payload that names nobody. consequence: what the destination then does."""
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError:  # a column of type JSON is taken at its word
        return ("the payload is no valid JSON",)
    if isinstance(message, dict) and not any(message.get(name) for name in _IDS):
        return (f"it has neither a userId nor an anonymousId: {consequence}",)
    return ()
