"""HTTP over aiohttp: the only room that knows it as a client.

One post is one request on a connection of its own for that time: never retried, not even when a
kept connection turns out to be closed, never redirected, never through a proxy of the environment.
Whatever goes wrong on the way is an Answer with status 0 and one word for it; only what must not
be tried at all raises.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp
from aiohttp.abc import AbstractStreamWriter, ResolveResult
from aiohttp.connector import Connection
from isal import isal_zlib

from pipeline.errors import DestinationRefused
from pipeline.model import Answer, Body, Pieces, Request
from pipeline.send import hosts, tls

# What is kept of an answer: enough for its message. A longer one costs its connection.
_ANSWER_BYTES = 64 * 1024
# Of a body as much is written at once, so that others have their turn in between.
_AT_ONCE = 2**20
# As much of it is copied to leave with the head: every write is a system call, and what is small
# a packet of its own too, for which the server wakes up.
_WITH_HEAD = 2**16
# One line of an answer's head, one field, and fields: as much as the usual servers take of ours.
_LINE_BYTES, _FIELD_BYTES, _FIELDS = 8190, 8190, 128
# asyncio's own writelines asks for no pause there, so that nobody waits for the body to be out:
# CVE-2024-12254.
_FORGETFUL = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)
# isal level 1: 860 MB/s and core, at nearly zlib-6's size on JSON; 31: with a gzip header.
_GZIP_LEVEL, _GZIP_WINDOW = 1, 31


# The first that fits counts: some are subclasses of those further down.
_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ConnectionTimeoutError, "connect_timeout"),
    (aiohttp.SocketTimeoutError, "read_timeout"),
    (TimeoutError, "timeout"),
    (aiohttp.ClientConnectorDNSError, "dns"),
    (aiohttp.ClientSSLError, "tls"),
    (aiohttp.ClientProxyConnectionError, "proxy"),
    (aiohttp.ClientHttpProxyError, "proxy_refused"),
    (aiohttp.ClientConnectorError, "connect"),
    (aiohttp.ClientPayloadError, "broken_answer"),  # it ends before its end
    (aiohttp.ClientResponseError, "bad_answer"),  # it is not HTTP, or has too large a head
    (aiohttp.ClientConnectionError, "reset"),  # of a connection that was made
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """In seconds. read: without a byte, once the request is out. total: from first to last."""

    connect: float
    read: float
    total: float


class HttpTransport:
    """A `Transport` of at most `connections` connections at a time.

    ca_file: authorities to trust beside the system's. Raises ConfigError when it is none.
    proxy: a URL, which may hold user and password; not asked for loopback.
    allowed_hosts: see `hosts.Hosts`.
    """

    def __init__(
        self,
        *,
        connections: int,
        timeouts: Timeouts,
        user_agent: str,
        ca_file: Path | None = None,
        proxy: str | None = None,
        allowed_hosts: tuple[str, ...] = (),
    ) -> None:
        self._connections = connections
        self._timeout = aiohttp.ClientTimeout(
            total=timeouts.total, sock_connect=timeouts.connect, sock_read=timeouts.read
        )
        self._user_agent = user_agent
        self._tls = tls.client_context(ca_file)
        self._hosts = hosts.Hosts(allowed_hosts)
        self._proxy = _Proxy(proxy) if proxy else None
        self._session: aiohttp.ClientSession | None = None

    async def post(self, request: Request) -> Answer:
        """See `pipeline.ports.Transport`. Raises DestinationRefused where nothing may be sent."""
        self._hosts.check(request.url)
        headers, body = dict(request.headers), _pieces(request.body)
        if request.encoding == "gzip":
            headers["Content-Encoding"] = "gzip"
            body = Pieces((await asyncio.to_thread(_gzip, body),))
        proxy = self._proxy if request.url.startswith("https:") else None
        try:
            async with self._opened().request(
                request.method,
                request.url,
                data=_Body(body),
                headers=headers,
                allow_redirects=False,
                proxy=proxy.url if proxy else None,
                proxy_headers=proxy.headers if proxy else None,
                middlewares=() if request.method == "POST" else (_once,),
            ) as response:
                kept = await _beginning(response.content)
                return Answer(
                    status=response.status,
                    body=kept,
                    retry_after=response.headers.get("Retry-After"),
                    rate_limit_reset=response.headers.get("X-RateLimit-Reset"),
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as error:
            if isinstance(error, aiohttp.ClientConnectorDNSError) and isinstance(
                error.os_error, _ForbiddenError
            ):
                raise DestinationRefused(hosts.refusal(error.host)) from None
            _untie(error)
            return Answer(status=0, error=_word(error))

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        # Made on first use: aiohttp ties a session to the loop that runs.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections, ssl=self._tls, resolver=_Resolver()
                ),
                request_class=_Request,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                trust_env=False,
                # A few bytes may unpack to gigabytes: nothing packed is asked for, or unpacked.
                auto_decompress=False,
                max_line_size=_LINE_BYTES,
                max_field_size=_FIELD_BYTES,
                max_headers=_FIELDS,
                headers={
                    "User-Agent": self._user_agent,
                    "Content-Type": "application/json",
                    "Accept-Encoding": "identity",
                },
            )
        return self._session


class _Body(aiohttp.Payload):
    """A body that is sent from where it lies: aiohttp would copy it behind the head."""

    _value: Pieces
    _autoclose = True

    def __init__(self, body: Pieces) -> None:
        super().__init__(body, content_type="application/json")
        self._size = len(body)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """See aiohttp."""
        return bytes(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """See aiohttp."""
        first, *others = _runs(self._value.parts)
        await writer.write(b"".join(first))
        for run in others:
            if (transport := writer.transport) is None or transport.is_closing():
                raise aiohttp.ClientConnectionResetError
            if _FORGETFUL:
                transport.write(b"".join(run))
            else:
                transport.writelines(run)
            await writer.drain()


class _Request(aiohttp.ClientRequest):
    """A request that takes no answer for its own which was there before it."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        # A server that answers twice, or longer than it said, leaves something on a kept
        # connection. Left to aiohttp, a 200 among it would count for rows nobody has taken.
        if conn.protocol is not None and conn.protocol.should_close:
            raise aiohttp.ServerDisconnectedError
        return await super().send(conn)


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Hide from aiohttp what it would send again by itself: PUT and what else is idempotent."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError from error


class _Proxy:
    """A proxy's URL without user and password, and the header that carries them."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self.headers: dict[str, str] = {}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            value = f"Basic {base64.b64encode(pair.encode()).decode()}"
            self.headers["Proxy-Authorization"] = value


class _ForbiddenError(OSError):
    """A name has no address that may be connected to."""


class _Resolver(aiohttp.ThreadedResolver):
    """The system's resolver, without the addresses that no name may lead to."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        accepted = [one for one in found if hosts.accepts(host, one["host"])]
        if found and not accepted:
            raise _ForbiddenError
        return accepted


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    """All of a body, so that the connection can be used again, or as much as is worth keeping."""
    kept = b""
    while len(kept) < _ANSWER_BYTES and not content.at_eof():
        kept += await content.read(_ANSWER_BYTES - len(kept))
    return kept


def _runs(parts: Sequence[memoryview | bytes]) -> list[list[memoryview]]:
    """What is written at once, in turn, and nothing of it empty; nothing is copied."""
    runs: list[list[memoryview]] = [[]]
    room = _WITH_HEAD
    for part in parts:
        rest = memoryview(part)
        while rest:
            if not room:
                runs.append([])
                room = _AT_ONCE
            runs[-1].append(rest[:room])
            rest, room = rest[room:], room - len(runs[-1][-1])
    return runs


def _pieces(body: Body) -> Pieces:
    return Pieces((body,)) if isinstance(body, bytes) else body


def _gzip(body: Pieces) -> bytes:
    compressor = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
    return b"".join([*map(compressor.compress, body.parts), compressor.flush()])


def _untie(error: Exception) -> None:
    """Let go of the frames it came through, and so of the body.

    aiohttp leaves faults of connecting in a circle with them, which only the collector unties.
    """
    chain: list[BaseException | None] = [error]
    while chain:
        one = chain.pop()
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            chain += (one.__cause__, one.__context__, getattr(one, "os_error", None))


def _word(error: Exception) -> str:
    """A bounded name for a fault; never the message, which may hold a URL."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return tls.word(error.certificate_error)
    return next((word for kind, word in _WORDS if isinstance(error, kind)), "network")
