"""What is kept of a dead letter: its payload whole, cut to ids or not at all, and encrypted or not.

The destination's words are kept too, and it may have quoted the row in them: values of the row
are replaced by their places first. Pure, but for the random numbers of the encryption. Whoever
has no key reads everything else; nothing in here raises for a payload.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from pipeline.model import DeadLetter, Kept, Reason

_IDS = ("type", "messageId", "userId", "anonymousId", "groupId", "previousId")
# Shorter texts and numbers are found in any sentence by chance.
_LEAST_TEXT, _LEAST_DIGITS = 3, 5
# Of long texts a server may quote the beginning only.
_LONG = 16
_OURS = frozenset(reason.value for reason in Reason)


class KeptPayload(NamedTuple):
    """A payload as it is stored."""

    data: bytes
    kept: Kept
    sealed: bool


class Keeper:
    """How much is kept, and under which key.

    keys: Fernet keys (32 bytes in URL-safe base64); the first encrypts, all decrypt. None: plain.
    """

    def __init__(self, kept: Kept = Kept.FULL, keys: Sequence[str] = ()) -> None:
        self._kept = kept
        self._cipher = MultiFernet([Fernet(key) for key in keys]) if keys else None

    @property
    def can_open(self) -> bool:
        """Whether there is a key; it may still be the wrong one."""
        return self._cipher is not None

    def keep(self, payload: bytes) -> KeptPayload:
        """The payload as it is to be stored."""
        kept, data = self._kept, payload
        if kept is Kept.IDS:
            data = _ids(payload)
        if kept is Kept.NONE or not data:
            return KeptPayload(b"", Kept.NONE, sealed=False)
        if self._cipher is None:
            return KeptPayload(data, kept, sealed=False)
        return KeptPayload(self._cipher.encrypt(data), kept, sealed=True)

    def open(self, data: bytes, *, sealed: bool) -> bytes | None:
        """A stored payload as it was kept; None when it is encrypted and no key fits."""
        if not sealed:
            return data
        if self._cipher is None:
            return None
        try:
            return self._cipher.decrypt(data)
        except InvalidToken:
            return None


def _ids(payload: bytes) -> bytes:
    """Who it is about and which message it was; empty when it has no such member."""
    message = _loaded(payload)
    if not isinstance(message, dict):
        return b""
    found = {key: message[key] for key in _IDS if isinstance(message.get(key), str)}
    return orjson.dumps(found) if found else b""


def words(letter: DeadLetter) -> str:
    """Its message, with the place instead of each value of the row that is quoted in it.

    `bob@example.com is no address` becomes `<traits.email> is no address`. Texts of fewer than 3
    characters, numbers of fewer than 5 and texts that are names of members are left as they are.
    A value that the server has rewritten is not recognised.
    """
    message = letter.message
    if not message or letter.reason in _OURS:
        return message
    row = _loaded(letter.payload)
    names = _names(row)
    values = [(text, place) for place, text in _texts(row, "") if text not in names]
    # The longest first: a shorter one may be part of it.
    for text, place in sorted(values, key=lambda value: -len(value[0])):
        message = _without(message, text, f"<{place}>")
    return message


def _without(message: str, text: str, place: str) -> str:
    if text in message:
        # Whole words only: `pro` is no part of `property`.
        message = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", lambda _: place, message)
    if len(text) > _LONG and text[:_LONG] in message:
        start = message.index(text[:_LONG])
        end = start + _LONG
        while end < len(message) and message[end : end + 1] == text[end - start : end - start + 1]:
            end += 1
        message = message[:start] + place + message[end:]
    return message


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """(place, text) of every value that could be recognised in a message."""
    if isinstance(value, dict):
        for key, inner in value.items():
            # The call's name is no content, and half of all messages have it.
            if place or key != "type":
                yield from _texts(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, place)
    elif isinstance(value, str):
        if len(value) >= _LEAST_TEXT:
            yield place, value
    elif isinstance(value, int | float) and len(str(value)) >= _LEAST_DIGITS:
        yield place, str(value)


def _names(value: Any) -> set[str]:
    """The names of all members: a message that says one speaks of it."""
    if isinstance(value, dict):
        inner = (_names(each) for each in value.values())
        return set(value).union(*inner)
    if isinstance(value, list):
        return set[str]().union(*map(_names, value))
    return set()


def _loaded(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
