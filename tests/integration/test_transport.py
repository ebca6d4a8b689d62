"""The HTTP transport against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import gzip
import resource
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aioresponses import aioresponses

from pipeline.errors import DestinationRefused
from pipeline.model import Request
from pipeline.send.file_transport import FileTransport
from pipeline.send.transport import HttpTransport

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1/batch"
    finally:
        listening.close()


def transport(timeout: float = 5.0) -> HttpTransport:
    return HttpTransport(
        connections=2, timeout=timeout, connect_timeout=1.0, user_agent="retl-test"
    )


async def read_request(reader: asyncio.StreamReader) -> tuple[dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    headers = {
        name.lower(): value
        for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:])
    }
    return headers, await reader.readexactly(int(headers["content-length"]))


def answering(raw: bytes, seen: list[tuple[dict[str, str], bytes]] | None = None) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        if seen is not None:
            seen.append(request)
        writer.write(raw)
        await writer.drain()

    return handle


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


async def test_a_post_carries_body_and_headers() -> None:
    seen: list[tuple[dict[str, str], bytes]] = []
    one = transport()
    async with server(answering(OK, seen)) as url:
        answer = await one.post(Request(url=url, headers={"X-Strict-Mode": "1"}, body=b"[1]"))
        zipped = await one.post(Request(url=url, headers={}, body=b"[1]" * 999, encoding="gzip"))
    await one.close()
    await one.close()
    assert (answer.status, answer.body, answer.error) == (200, b"{}", None)
    assert zipped.status == 200
    (headers, body), (zip_headers, zip_body) = seen
    assert body == b"[1]"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "retl-test"
    assert headers["x-strict-mode"] == "1"
    assert zip_headers["content-encoding"] == "gzip"
    assert gzip.decompress(zip_body) == b"[1]" * 999


@pytest.mark.parametrize(
    ("raw", "status", "retry_after"),
    [
        (b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n", 429, "3"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            302,
            None,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            200,
            None,
        ),
    ],
)
async def test_answers_are_taken_as_they_are(
    raw: bytes, status: int, retry_after: str | None
) -> None:
    one = transport()
    async with server(answering(raw)) as url:
        answer = await one.post(Request(url=url, headers={}, body=b"{}"))
    await one.close()
    assert (answer.status, answer.retry_after) == (status, retry_after)


async def test_a_huge_answer_is_cut() -> None:
    raw = b"HTTP/1.1 400 Bad\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000
    one = transport()
    async with server(answering(raw)) as url:
        answer = await one.post(Request(url=url, headers={}, body=b"{}"))
    await one.close()
    assert answer.status == 400
    assert 0 < len(answer.body) <= 65_536


async def _close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def _cut_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"I am not HTTP\r\n\r\n")
    await writer.drain()


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()  # until the client gives up


@pytest.mark.parametrize(
    ("handler", "word"),
    [
        (_close_at_once, "reset"),
        (_cut_answer, "broken_answer"),
        (_garbage, "network"),
        (_silent, "timeout"),
    ],
)
async def test_faults_on_the_way_are_one_word(handler: Handler, word: str) -> None:
    one = transport(timeout=0.2)
    async with server(handler) as url:
        answer = await one.post(Request(url=url, headers={}, body=b"{}"))
    await one.close()
    assert (answer.status, answer.error) == (0, word)


async def _plain_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(OK)
    await writer.drain()


async def test_nobody_listening_and_tls_that_is_none() -> None:
    one = transport()
    async with server(_plain_answer) as url:
        tls = await one.post(Request(url=url.replace("http:", "https:"), headers={}, body=b"{}"))
    refused = await one.post(Request(url=url, headers={}, body=b"{}"))
    await one.close()
    assert (tls.status, tls.error) == (0, "tls")
    assert (refused.status, refused.error) == (0, "connect")


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (aiohttp.ConnectionTimeoutError(), "connect_timeout"),
        (aiohttp.ServerDisconnectedError(), "reset"),
        (ssl.SSLError(), "network"),
        (TimeoutError(), "timeout"),
    ],
)
async def test_rare_faults_have_their_word_too(fault: Exception, word: str) -> None:
    one = transport()
    with aioresponses() as mocked:
        mocked.post("http://example.test/", exception=fault)
        answer = await one.post(Request(url="http://example.test/", headers={}, body=b"{}"))
    await one.close()
    assert answer.error == word


async def test_files_take_bodies_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.ndjson"
    for append, expected in ((False, b"a\nb\n"), (True, b"a\nb\na\nb\n"), (False, b"a\nb\n")):
        one = FileTransport(path, append=append)
        await one.post(Request(url="", headers={}, body=b"a\n"))
        assert (await one.post(Request(url="", headers={}, body=b"b\n"))).status == 200
        await one.close()
        await one.close()
        assert path.read_bytes() == expected


async def test_a_file_that_can_not_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(DestinationRefused, match="can't be written"):
        await FileTransport(tmp_path, append=True).post(Request(url="", headers={}, body=b"a\n"))


async def test_a_full_disk_leaves_whole_lines_and_is_for_trying_again(tmp_path: Path) -> None:
    path = tmp_path / "out.ndjson"
    one = FileTransport(path, append=True)
    await one.post(Request(url="", headers={}, body=b"first\n"))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limit[1]))
    try:
        with pytest.raises(DestinationRefused, match="can't be written"):  # EFBIG, not ENOSPC
            await one.post(Request(url="", headers={}, body=b"x" * 100 + b"\n"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"first\n"
    await one.post(Request(url="", headers={}, body=b"second\n"))
    await one.close()
    assert path.read_bytes() == b"first\nsecond\n"


@pytest.mark.parametrize(
    ("left", "kept"),
    [(b"", b""), (b"whole\n", b"whole\n"), (b"whole\nhal", b"whole\n"), (b"x" * 70_000, b"")],
)
async def test_half_a_line_of_a_crash_is_cut_off(tmp_path: Path, left: bytes, kept: bytes) -> None:
    path = tmp_path / "out.ndjson"
    path.write_bytes(left)
    one = FileTransport(path, append=True)
    await one.open()
    await one.post(Request(url="", headers={}, body=b"new\n"))
    await one.close()
    assert path.read_bytes() == kept + b"new\n"
