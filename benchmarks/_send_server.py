"""A sink for requests in a process of its own: reads, waits, answers 200. As little as can be.

    python benchmarks/_send_server.py CERTIFICATE.pem

Prints two ports: plain, and TLS with that certificate. A line on its standard input sets how many
seconds later than a request its answer comes; the end of the input ends it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys

import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_LENGTH = b"content-length:"


class Latency:
    """Seconds, shared by all connections."""

    seconds = 0.0


class Sink(asyncio.BufferedProtocol):
    """One connection, one request at a time; bodies are counted and forgotten."""

    def __init__(self, latency: Latency) -> None:
        self._latency = latency
        self._space = bytearray(2**18)
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio."""
        del sizehint
        return memoryview(self._space)

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        if self._left:
            self._left -= nbytes
        else:
            self._head += self._space[:nbytes]
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = b""
            length = head.lower().partition(_LENGTH)[2].split(b"\r\n", 1)[0]
            self._left = int(length) - len(body)
        if not self._left:
            if self._latency.seconds:
                loop = asyncio.get_running_loop()
                loop.call_later(self._latency.seconds, self._answer)
            else:
                self._answer()

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(_ANSWER)  # type: ignore[attr-defined] # a socket's


async def main(latency: Latency) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    servers = [
        await loop.create_server(lambda: Sink(latency), "127.0.0.1", 0, ssl=tls, backlog=1024)
        for tls in (None, context)
    ]
    print(*[server.sockets[0].getsockname()[1] for server in servers], flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        latency.seconds = float(line)
        print("set", flush=True)
    for server in servers:
        server.close()


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    uvloop.run(main(Latency()))
