"""Checks of addresses: endpoints, proxies, hosts, and where the state is.

Each takes the value as pydantic has typed it and gives it back, tidied, or raises `wrong`.
Pure, and never shows a value.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import SecretStr

from pipeline.config.faults import wrong
from pipeline.config.values import unique
from pipeline.send.hosts import is_ip, is_loopback

_HTTPS_ONLY = "Use https; plain http is for loopback (127.0.0.1, ::1, localhost) only."
_URL_FORM = "Write `https://host`, or `http://127.0.0.1:PORT` for a local server."
_POSTGRES = re.compile(r"postgres(ql)?://", re.ASCII)


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


def proxy(secret: SecretStr) -> SecretStr:
    """The URL of a proxy, perhaps with user and password."""
    text = secret.get_secret_value().strip().rstrip("/")
    remedy = "Write `http://proxy.example.com:3128`, or with `user:password@` before the host."
    try:
        url = urlsplit(text)
        user = unquote(url.username or "")
        fine = url.scheme in {"http", "https"} and url.hostname and url.port is not None
    except ValueError:
        url, user, fine = urlsplit(""), "", False
    if not fine or url.path or url.query or url.fragment or re.search(r"\s", text):
        raise wrong("This is not the URL of a proxy.", remedy)
    if ":" in user:  # RFC 7617 has no way to say it
        raise wrong("The user of a proxy can't have a colon.", remedy)
    return SecretStr(text)


def hosts(value: list[str]) -> list[str]:
    """Names of hosts, or `*.` and the domain that they are below."""
    for name in value:
        if not re.fullmatch(r"(?:\*\.)?[\w-]+(?:\.[\w-]+)*\.?", name, re.ASCII) and not is_ip(name):
            remedy = "Write `cdp.customer.io` or `*.example.com`: no scheme, port or path."
            raise wrong("This is not the name of a host.", remedy)
    return unique(value)


def state(value: str) -> str:
    """A SQLite URL with a file in it, or a Postgres URL with a database in it."""
    form = "Write `sqlite:///PATH`, such as `sqlite:///.retl/state.db`, or `postgresql://...`."
    if _POSTGRES.match(value):
        return _postgres(value)
    if not value.startswith("sqlite:"):
        raise wrong("Only SQLite and Postgres can keep the state.", form)
    path = value.removeprefix("sqlite:///")
    if path == value or not path.strip("/") or path == ":memory:" or "?" in path:
        raise wrong("This names no SQLite file.", form)
    return value


def _postgres(value: str) -> str:
    """As libpq takes it. A mistyped password would end up in the host's or database's name."""
    form = (
        "Write `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, with %XX for special characters "
        "in the password (%40 for @, %2F for /)."
    )
    rest = value.partition("//")[2]
    place, _, path = rest.partition("?")[0].partition("/")
    if not path.strip("/") or "/" in path:
        raise wrong("This names no database of a Postgres server.", form)
    if "@" in path or rest.count("@") > 1 or (rest.count("@") == 1 and "@" not in place):
        raise wrong("There is an @ in it where none can be.", form)
    return value
