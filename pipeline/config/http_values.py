"""Checks of what travels in HTTP: URLs with queries, headers, keys, envelopes, verdicts.

Each takes the value as pydantic has typed it and gives it back, tidied, or raises `wrong`.
Pure, and never shows a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from pipeline.config.addresses import http_endpoint
from pipeline.config.faults import wrong

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110, section 5.6.2
# What the body and the connection decide, and `content_type`.
_OURS = frozenset(
    {
        *("connection", "content-encoding", "content-length", "content-type", "host"),
        *("transfer-encoding", "user-agent"),
    }
)
_STATUS = re.compile(r"[1-5](?:xx|[0-9]{2})", re.ASCII)
_ENVELOPE_FORMS = "Write `array`, `ndjson`, `{key: NAME}` or `{prefix: ..., suffix: ...}`."
_ENVELOPES: Mapping[str, Mapping[str, str]] = {
    "array": {"prefix": "[", "separator": ",", "suffix": "]"},
    "ndjson": {"prefix": "", "separator": "\n", "suffix": "\n"},
}


def write_key(secret: SecretStr) -> SecretStr:
    """A key without the white space that pasting adds; it travels in an HTTP header."""
    text = secret.get_secret_value().strip()
    if not text:
        raise wrong("The key is empty.", "Set it, normally as `${NAME}`.")
    if not text.isascii() or not text.isprintable() or " " in text or ":" in text:
        raise wrong("The key holds characters that no key has.", "Copy it again.")
    return SecretStr(text)


def webhook_url(value: str) -> str:
    """An https URL, or http on loopback; it may have a query."""
    text = value.strip()
    try:
        url = urlsplit(text)
    except ValueError:
        url = None
    if url is None or not text.isascii() or url.fragment:
        raise wrong("This is not a URL.", "Write `https://host/path`.")
    http_endpoint(url._replace(query="").geturl())
    return text


def header_name(value: str) -> str:
    """A name that an HTTP header may have, and that is not ours."""
    if not _TOKEN.fullmatch(value):
        remedy = "Use letters, digits and `-`, as in `X-Signature`."
        raise wrong("This is not the name of a header.", remedy)
    if value.lower() in _OURS:
        remedy = "Remove it." if value.lower() != "content-type" else "Use `content_type`."
        raise wrong("This header is not free to be set.", remedy)
    return value


def headers(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Headers, each once and of one line."""
    if len({header_name(name).lower() for name in value}) != len(value):
        raise wrong("A header is named twice.", "Name it once, in any case.")
    tidy = {name: secret.get_secret_value().strip() for name, secret in value.items()}
    if not all(text.isascii() and text.isprintable() for text in tidy.values()):
        remedy = "Use printable ASCII, on one line."
        raise wrong("The value of a header holds characters that it can't.", remedy)
    return {name: SecretStr(text) for name, text in tidy.items()}


def content_type(value: str) -> str:
    """A media type, perhaps with parameters."""
    text = value.strip()
    if not re.fullmatch(r"[\w.+-]+/[\w.+-]+(?:\s*;[\x20-\x7e]*)?", text, re.ASCII):
        raise wrong("This is not a media type.", "Write one, such as `application/json`.")
    return text


def signature_prefix(value: str) -> str:
    """What may stand in a header."""
    if not (value.isascii() and value.isprintable()):
        raise wrong("This holds characters that a header can't.", "Use printable ASCII.")
    return value


def secret_text(secret: SecretStr) -> SecretStr:
    """A secret that is there; the white space that pasting adds is no part of it."""
    text = secret.get_secret_value().strip()
    if not text:
        raise wrong("The secret is empty.", "Set it, normally as `${NAME}`.")
    return SecretStr(text)


def envelope(value: object) -> object:
    """An envelope as its mapping: `array` and `ndjson` are short for one."""
    if isinstance(value, str) and value in _ENVELOPES:
        return dict(_ENVELOPES[value])
    if isinstance(value, Mapping | BaseModel):
        return value
    raise wrong("This is not an envelope.", _ENVELOPE_FORMS)


def separator(value: str) -> str:
    """One byte."""
    if len(value) != 1 or not value.isascii():
        raise wrong("This must be a single ASCII character.", 'Write `","` or `"\\n"`.')
    return value


def verdicts(value: object) -> object:
    """Statuses as text: YAML takes `409` for a number."""
    if not isinstance(value, Mapping):
        return value
    rules: dict[str, Any] = {str(key).strip().lower(): word for key, word in value.items()}
    if not all(_STATUS.fullmatch(key) for key in rules):
        remedy = "Write a status (`409`) or a class of them (`4xx`)."
        raise wrong("A key here is no HTTP status.", remedy)
    return rules


def file_path(value: str) -> str:
    """A path of this machine, or a URI without credentials in it."""
    text = value.strip()
    if not text:
        raise wrong("This is empty.", "Write a path or a URI (`gs://`, `s3://`).")
    if "://" not in text:
        return text
    try:
        url = urlsplit(text)
    except ValueError:
        raise wrong("This is not a URI.", "Write `gs://bucket/folder`.") from None
    if url.username or url.password:
        remedy = "Leave them to the environment, as the store's own tools do."
        raise wrong("Credentials don't belong in a path.", remedy)
    if not (url.netloc or url.path.strip("/")):
        raise wrong("This URI names no place.", "Write `gs://bucket/folder`.")
    return text.rstrip("/")
