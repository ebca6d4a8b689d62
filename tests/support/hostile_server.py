"""An HTTP server on loopback that misbehaves as told, and knows the truth of what it took.

Raw asyncio, since no HTTP library lets its user break HTTP. A `Deed` does one thing to one
request; a server does the deeds of its script in turn, and then answers well. What a deed takes
counts as arrived; `known` tells whether its success was told in full, so that a client that sends
it again does wrong.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

BAD = frozenset({"7", "123", "399"})
"""Users whose rows `refuse_bad_rows` refuses."""

PATH = "/v1/batch"
_SOON = 0.02  # seconds between the bytes of a slow server


@dataclass(frozen=True)
class Taken:
    """A row that the server keeps, and whether its client was told so."""

    user: str
    message_id: str
    known: bool


@dataclass
class Exchange:
    """One request, as far as a deed wants to see it. number: of all requests, from 0."""

    server: HostileServer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes
    number: int
    items: list[dict[str, Any]] = field(default_factory=list)

    @property
    def length(self) -> int:
        for line in self.head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                return int(value)
        return 0

    async def body(self) -> None:
        """Read all of the request."""
        raw = await self.reader.readexactly(self.length)
        if b"content-encoding: gzip" in self.head.lower():
            raw = gzip.decompress(raw)
        self.items = orjson.loads(raw)["batch"]

    def take(self, *, known: bool) -> None:
        """Keep its rows."""
        self.server.taken += [
            Taken(item["userId"], item["messageId"], known) for item in self.items
        ]

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int, body: bytes = b"{}", *headers: str) -> None:
        """A whole answer."""
        await self.write(whole(status, body, *headers))

    def reset(self) -> None:
        """RST instead of FIN: the client may lose what it was sent before."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def silence(self) -> None:
        """Until the client goes away."""
        with suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass


Deed = Callable[[Exchange], Awaitable[None]]
DEEDS: dict[str, Deed] = {}


def deed(function: Deed) -> Deed:
    """Give it a name in scripts."""
    DEEDS[getattr(function, "__name__", "")] = function
    return function


def whole(status: int, body: bytes = b"{}", *headers: str) -> bytes:
    """The bytes of an answer."""
    length = f"Content-Length: {len(body)}"
    lines = [f"HTTP/1.1 {status} Said", "Content-Type: application/json", length, *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


# ------------------------------------------------------------------------ answers in order


@deed
async def good(one: Exchange) -> None:
    await one.body()
    one.take(known=True)
    await one.answer(200)


def status(code: int, body: bytes = b"{}", *headers: str) -> Deed:
    """Refuse all of the request by a status; nothing is kept."""

    async def refuse(one: Exchange) -> None:
        await one.body()
        await one.answer(code, body, *headers)

    return refuse


DEEDS |= {
    "throttle": status(429),
    "throttle_for_seconds": status(429, b"{}", "Retry-After: 1"),
    "throttle_for_nothing": status(429, b"{}", "Retry-After: soon"),
    "throttle_until_date": status(429, b"{}", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"),
    "unavailable": status(503, b"<html>busy</html>", "Content-Type: text/html"),
    "huge_unavailable": status(503, b"x" * 3_000_000),
    "elsewhere": status(302, b"", "Location: /elsewhere"),
    "elsewhere_for_good": status(308, b"", "Location: http://127.0.0.1:1/elsewhere"),
    "unauthorized": status(401),
    "not_here": status(404),
}


@deed
async def refuse_bad_rows(one: Exchange) -> None:
    """400, at length, while a bad row is among them."""
    await one.body()
    if any(item["userId"] in BAD for item in one.items):
        await one.answer(400, b'{"meta":{"errors":["' + b"bad " * 500_000 + b'"]}}')
    else:
        one.take(known=True)
        await one.answer(200)


@deed
async def too_large(one: Exchange) -> None:
    """413 for more than 10 rows, once they were read."""
    await one.body()
    if len(one.items) > 10:
        await one.answer(413)
    else:
        one.take(known=True)
        await one.answer(200)


@deed
async def too_large_early(one: Exchange) -> None:
    """413 by the head alone; the body is left where it is until the client has gone."""
    if one.length > 100_000:
        await one.answer(413, b"{}", "Connection: close")
        await one.silence()
        one.writer.close()
    else:
        await good(one)


# ------------------------------------------------------------- successes in odd clothes


def success(raw: bytes) -> Deed:
    """Keep the rows and say so by these bytes."""

    async def say(one: Exchange) -> None:
        await one.body()
        one.take(known=True)
        await one.write(raw)

    return say


DEEDS |= {
    "garbage_body": success(whole(200, b"\x00\xff{not json" * 100)),
    "wrong_type": success(whole(200, b"<html>", "Content-Type: image/png; q=\xff")),
    "no_content": success(b"HTTP/1.1 204 None\r\n\r\n"),
    "continue_first": success(b"HTTP/1.1 100 Continue\r\n\r\n" + whole(200)),
    "hints_first": success(b"HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n" * 5 + whole(200)),
    "bomb": success(
        whole(200, gzip.compress(gzip.compress(bytes(20_000_000))), "Content-Encoding: gzip")
    ),
    "huge_success": success(whole(200, b"x" * 3_000_000)),
    "chunked": success(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n"
    ),
}


@deed
async def close_after_answer(one: Exchange) -> None:
    await one.body()
    one.take(known=True)
    await one.answer(200, b"{}", "Connection: close")
    one.writer.close()


@deed
async def close_unannounced(one: Exchange) -> None:
    """As a server whose keep-alive time is over just then."""
    await good(one)
    one.writer.close()


@deed
async def answer_twice(one: Exchange) -> None:
    """The second answer is nobody's, and must not be taken for the next request's."""
    await good(one)
    await asyncio.sleep(_SOON)
    await one.answer(200)


# ------------------------------------------------------------------- nobody can know


def broken(raw: bytes, *, reset: bool = False) -> Deed:
    """Keep the rows, say so by less than an answer, and hang up."""

    async def say(one: Exchange) -> None:
        await one.body()
        one.take(known=False)
        if raw:
            await one.write(raw)
        one.reset() if reset else one.writer.close()

    return say


DEEDS |= {
    "close_before_answer": broken(b""),
    "reset_before_answer": broken(b"", reset=True),
    "reset_in_head": broken(b"HTTP/1.1 200 OK\r\nContent-", reset=True),
    "reset_in_body": broken(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", reset=True),
    "close_in_body": broken(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
    "bad_chunk": broken(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
    "half_a_chunk": broken(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"),
    "more_than_said": broken(whole(200) + b"and more"),
    "no_http": broken(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "long_line": broken(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
    "many_fields": broken(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 5_000 + b"\r\n"),
    "two_lengths": broken(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
}


@deed
async def say_nothing(one: Exchange) -> None:
    await one.body()
    one.take(known=False)
    await one.silence()


@deed
async def drip(one: Exchange) -> None:
    """An answer byte by byte, that would take for ever: each is in time."""
    await one.body()
    one.take(known=False)
    with suppress(ConnectionError):
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000:
            await one.write(bytes([byte]))
            await asyncio.sleep(_SOON)
            if one.reader.at_eof():
                return


@deed
async def drip_body(one: Exchange) -> None:
    """A head at once, and then a body without end."""
    await one.body()
    one.take(known=False)
    with suppress(ConnectionError):
        await one.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(1_000):
            await one.write(b"x")
            await asyncio.sleep(_SOON)
            if one.reader.at_eof():
                return


# --------------------------------------------------------------------- nothing was taken


@deed
async def reset_before_reading(one: Exchange) -> None:
    one.reset()


@deed
async def reset_in_request(one: Exchange) -> None:
    await one.reader.readexactly(one.length // 2)
    one.reset()


@deed
async def read_nothing(one: Exchange) -> None:
    """The client's send buffer fills, and nobody empties it."""
    one.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await one.server.healed.wait()
    one.writer.close()


# ---------------------------------------------------------------------------- the server


class HostileServer:
    """Does the deeds of `script`, one a request, and then `then`."""

    def __init__(self, script: Sequence[Deed] = (), then: Deed = good) -> None:
        self.script, self.then = list(script), then
        self.taken: list[Taken] = []
        self.requests = 0
        self.paths: set[str] = set()
        self.open: set[asyncio.StreamWriter] = set()
        self.most_open = 0
        self.certificate: ssl.SSLContext | None = None
        self.healed = asyncio.Event()
        self.url = ""
        self._gone = asyncio.Event()

    def heal(self) -> None:
        """No more deeds."""
        self.script, self.then = [], good
        self.healed.set()

    @asynccontextmanager
    async def serving(self, context: ssl.SSLContext | None = None) -> AsyncIterator[HostileServer]:
        """context: TLS, of which `certificate` is shown, and can be changed."""
        if context is not None:
            self.certificate = self.certificate or context
            context.sni_callback = lambda connection, *_: setattr(
                connection, "context", self.certificate
            )
        listening = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=context)
        port = listening.sockets[0].getsockname()[1]
        self.url = f"https://localhost:{port}/v1" if context else f"http://127.0.0.1:{port}/v1"
        try:
            yield self
        finally:
            listening.close()
            self.healed.set()
            for writer in list(self.open):
                writer.transport.abort()
            await self.all_gone()

    async def all_gone(self) -> None:
        """Until no client is connected. Raises TimeoutError when one stays."""
        async with asyncio.timeout(2.0):
            while self.open:
                self._gone.clear()
                await self._gone.wait()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        self.most_open = max(self.most_open, len(self.open))
        try:
            while not writer.transport.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                self.paths.add(head.split(b" ", 2)[1].decode())
                number, self.requests = self.requests, self.requests + 1
                act = self.script[number] if number < len(self.script) else self.then
                await act(Exchange(self, reader, writer, head, number))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
            self.open.discard(writer)
            self._gone.set()
