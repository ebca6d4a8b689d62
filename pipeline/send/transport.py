"""HTTP over aiohttp: the only room that knows it as a client.

One post is one request: never retried, never redirected, never through a proxy of the
environment. Whatever goes wrong on the way is an Answer with status 0 and one word for it.
"""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
from isal import isal_zlib

from pipeline.model import Answer, Request

# What is kept of an answer: enough for its message. A longer one costs its connection.
_ANSWER_BYTES = 64 * 1024
# isal level 1: 860 MB/s and core, at nearly zlib-6's size on JSON; 31: with a gzip header.
_GZIP_LEVEL, _GZIP_WINDOW = 1, 31


class HttpTransport:
    """A `Transport` of at most `connections` connections at a time; timeouts in seconds."""

    def __init__(
        self, *, connections: int, timeout: float, connect_timeout: float, user_agent: str
    ) -> None:
        self._connections = connections
        self._timeout = aiohttp.ClientTimeout(
            total=timeout, sock_connect=connect_timeout, sock_read=timeout
        )
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    async def post(self, request: Request) -> Answer:
        """See `pipeline.ports.Transport`."""
        headers, body = dict(request.headers), request.body
        if request.encoding == "gzip":
            headers["Content-Encoding"] = "gzip"
            body = await asyncio.to_thread(_gzip, body)
        try:
            async with self._opened().post(
                request.url, data=body, headers=headers, allow_redirects=False
            ) as response:
                kept = await _beginning(response.content)
                retry_after = response.headers.get("Retry-After")
                return Answer(status=response.status, body=kept, retry_after=retry_after)
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as error:
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
                connector=aiohttp.TCPConnector(limit=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                trust_env=False,
                headers={"User-Agent": self._user_agent, "Content-Type": "application/json"},
            )
        return self._session


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    """All of a body, so that the connection can be used again, or as much as is worth keeping."""
    kept = b""
    while len(kept) < _ANSWER_BYTES and (more := await content.read(_ANSWER_BYTES - len(kept))):
        kept += more
    return kept


def _gzip(body: bytes) -> bytes:
    compressor = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
    return bytes(compressor.compress(body) + compressor.flush())


def _word(error: Exception) -> str:
    """A bounded name for a fault; never the message, which may hold a URL."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return "connect_timeout"
        case TimeoutError():
            return "timeout"
        case aiohttp.ClientConnectorDNSError():
            return "dns"
        case aiohttp.ClientSSLError():
            return "tls"
        case aiohttp.ClientConnectorError():
            return "connect"
        case aiohttp.ClientPayloadError():
            return "broken_answer"
        case aiohttp.ServerDisconnectedError() | ConnectionError():
            return "reset"
        case _:
            return "network"
