"""A TCP proxy before the Storage Read API: what goes wrong with connections, byte by byte.

gRPC's server lets nobody touch its connections; here they are cut, stalled, slowed down, or told
to go away, as the plan's rules `on: connection` say. Counts the bytes that it let pass. Knows of
HTTP/2 only where its frames begin and end.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress

from pipeline.local.fault import Fault
from pipeline.local.faults import CONNECTION, FaultPlan

_CHUNK = 65_536
# At so many pieces a second a slow connection drips.
_DRIPS = 20.0
# An HTTP/2 frame's head: 24 bits of length, type, flags, 32 bits of stream (RFC 9113, 4.1).
_HEAD = 9
# GOAWAY (type 7) on stream 0: whatever streams there are may end, NO_ERROR (RFC 9113, 6.8).
GOAWAY = struct.pack(">I", 8)[1:] + b"\x07\x00" + struct.pack(">III", 0, 2**31 - 1, 0)
_NO_FAULT = Fault()


class Proxy:
    """Forwards connections to a port of this machine.

    connections: how many were accepted. passed: bytes that went to clients.
    """

    def __init__(self, plan: FaultPlan) -> None:
        self._plan, self._port = plan, 0
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.passed = 0

    async def start(self, host: str, port: int, behind: int) -> int:
        """Listen, for the port `behind`; the port taken. Raises OSError."""
        self._port = behind
        self._server = await asyncio.start_server(self._accept, host, port)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop listening and cut all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this in a task
        self._serving.add(task)
        self.connections += 1
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the other end went away, or this proxy ends
        finally:
            self._serving.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._plan.next(CONNECTION) or _NO_FAULT
        await asyncio.sleep(fault.delay)
        answers, requests = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            ways = {
                asyncio.ensure_future(_pump(reader, requests)),
                asyncio.ensure_future(self._answer(answers, writer, fault)),
            }
            try:
                # Either end closes both; a connection that hangs is kept until the client goes.
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            requests.transport.abort()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault
    ) -> None:
        left = fault.after_bytes
        if fault.goaway:
            await self._go_away(reader, writer, left)
            return
        async for data in _chunks(reader):
            head, rest = data[:left], data[left:]
            left -= len(head)
            await self._send(writer, head)
            if rest and fault.reset:
                _abort(writer)
                return
            if rest and fault.hang:
                await asyncio.Event().wait()
            if rest and fault.bytes_per_second:
                await self._drip(writer, rest, fault.bytes_per_second)
            else:
                await self._send(writer, rest)

    async def _go_away(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int
    ) -> None:
        told = False
        async for frame in _frames(reader):
            if left <= 0 and not told:
                told = True
                await self._send(writer, GOAWAY)
            await self._send(writer, frame)
            left -= len(frame)

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if data:
            writer.write(data)
            self.passed += len(data)
            await writer.drain()

    async def _drip(self, writer: asyncio.StreamWriter, data: bytes, rate: float) -> None:
        step = max(1, int(rate / _DRIPS))
        for start in range(0, len(data), step):
            await self._send(writer, data[start : start + step])
            await asyncio.sleep(step / rate)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async for data in _chunks(reader):
        writer.write(data)
        await writer.drain()


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(_CHUNK):
        yield data


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """HTTP/2 frames of a server, whole."""
    with suppress(asyncio.IncompleteReadError):
        while True:
            head = await reader.readexactly(_HEAD)
            yield head + await reader.readexactly(int.from_bytes(head[:3], "big"))


def _abort(writer: asyncio.StreamWriter) -> None:
    """Cut the connection with a TCP reset: what was not read yet is lost."""
    connection = writer.get_extra_info("socket")
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
