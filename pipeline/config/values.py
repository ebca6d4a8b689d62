"""Checks of values that have a grammar of their own: endpoints, labels, state, percentages.

Each takes the value as pydantic has typed it and gives it back, tidied, or raises `wrong`.
Pure, and never shows a value.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, SecretStr

from pipeline.config.faults import wrong

_HTTPS_ONLY = "Use https; plain http is for loopback (127.0.0.1, ::1, localhost) only."
_URL_FORM = "Write `https://host`, or `http://127.0.0.1:PORT` for a local server."
_COLUMN_FORMS = "Write a place (`context.ip`), `{to: PLACE, as: FORMAT}`, or null to drop it."
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", re.ASCII)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def http_endpoint(value: str) -> str:
    """An https URL, or http on loopback; without a trailing slash."""
    text = value.strip().rstrip("/")
    url = _split(text)
    if url is None or url.scheme not in {"http", "https"}:
        raise wrong("This is not a URL.", _URL_FORM)
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise wrong("Plain http would send data and keys unprotected.", _HTTPS_ONLY)
    return text


def grpc_endpoint(value: str) -> str:
    """`host:port` (TLS) or `http://host:port` (plain, loopback only)."""
    text = value.strip().rstrip("/").removeprefix("https://")
    url = _split(text if "://" in text else f"https://{text}")
    form = "Write `host:port`, or `http://127.0.0.1:PORT` for a local server."
    if url is None or url.scheme not in {"http", "https"} or url.port is None or url.path:
        raise wrong("This is not a gRPC endpoint.", form)
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise wrong("Plain http would send data and keys unprotected.", _HTTPS_ONLY)
    return text


def _split(text: str) -> SplitResult | None:
    """The URL's parts; None for what is no bare URL (credentials, queries, bad ports)."""
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return None
    bare = not (url.query or url.fragment or url.username or url.password)
    return url if url.hostname and bare and not re.search(r"\s", text) else None


# What Google's library needs of a key.
_KEY_FIELDS = ("type", "client_email", "private_key", "token_uri")


def service_account(secret: SecretStr) -> SecretStr:
    """The text of a service account's JSON key."""
    text = secret.get_secret_value().strip()
    remedy = (
        "Give the key file's text, normally `${file:PATH}`; "
        "leave `credentials` out for Application Default Credentials."
    )
    if not text:
        raise wrong("This is empty.", remedy)
    try:
        key = json.loads(text)
    except (ValueError, RecursionError):
        key = None
    if not isinstance(key, dict):
        # `from None` is implied: the decoder's own message would quote the text.
        raise wrong("This is not the JSON text of a key.", remedy)
    missing = [name for name in _KEY_FIELDS if not key.get(name)]
    if missing:
        raise wrong(f"The key lacks {', '.join(missing)}.", f"Download it again. {remedy}")
    if key.get("type") != "service_account":
        raise wrong("This is not the key of a service account.", remedy)
    return SecretStr(text)


def api_key(secret: SecretStr) -> SecretStr:
    """A key without the white space that pasting adds; it travels in an HTTP header."""
    text = secret.get_secret_value().strip()
    if not text:
        raise wrong("The key is empty.", "Set it, normally as `${CUSTOMERIO_API_KEY}`.")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise wrong("The key holds characters that no key has.", "Copy it again.")
    return SecretStr(text)


def labels(value: dict[str, str]) -> dict[str, str]:
    """BigQuery's rules for labels (cloud.google.com/bigquery/docs/labels-intro#requirements)."""
    fine = len(value) <= 64 and all(
        key and (key[0].isalpha() and _label(key)) and (not content or _label(content))
        for key, content in value.items()
    )
    if not fine:
        raise wrong(
            "BigQuery would refuse these labels.",
            "At most 64; keys start with a letter; keys and values have at most 63 of "
            "lower-case letters, digits, _ and -.",
        )
    return value


def _label(text: str) -> bool:
    return len(text) <= 63 and all(
        char in "_-" or (char.isalnum() and char == char.lower()) for char in text
    )


def state(value: str) -> str:
    """A SQLite URL with a file in it."""
    form = "Write `sqlite:///PATH`, such as `sqlite:///.retl/state.db`."
    if not value.startswith("sqlite:"):
        raise wrong("Only SQLite can keep the state in this version.", form)
    path = value.removeprefix("sqlite:///")
    if path == value or not path.strip("/") or path == ":memory:" or "?" in path:
        raise wrong("This names no SQLite file.", form)
    return value


def max_rejected(value: object) -> int | str:
    """Rows, or a percentage as text with its `%`."""
    remedy = 'Write rows (`100`) or a percentage from 0% to 100% ("0.5%").'
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong("This is neither rows nor a percentage.", remedy)
    text = str(value).strip()
    percent = _PERCENT.fullmatch(text)
    if percent is not None and float(percent[1]) <= 100:
        return f"{percent[1]}%"
    if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        return int(text)
    raise wrong("This is neither rows nor a percentage.", remedy)


def column(value: object) -> object:
    """What `columns` says of one column, as its mapping: a place alone is short for `to`."""
    if isinstance(value, str):
        return {"to": place(value)}
    if value is None or isinstance(value, Mapping | BaseModel):
        return value
    raise wrong("This is neither a place nor a mapping.", _COLUMN_FORMS)


def place(value: str) -> str:
    """A name, or names with dots between them."""
    if not value:
        raise wrong("This is empty.", _COLUMN_FORMS)
    try:
        value.encode()
    except UnicodeEncodeError:  # an escape such as "\ud800"
        raise wrong("This is not text.", "Remove what is no character.") from None
    if not all(value.split(".")):
        raise wrong("This is no place.", "Write `name` or `object.name`.")
    return value


def unique(values: list[str]) -> list[str]:
    """A list that names nothing twice, and nothing empty."""
    if len(set(values)) != len(values):
        raise wrong("This names something twice.", "Name it once.")
    if not all(value.strip() for value in values):
        raise wrong("This holds an empty name.", "Remove it.")
    return values
