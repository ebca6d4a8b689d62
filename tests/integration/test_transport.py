"""The HTTP transport against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import create_autospec

import aiohttp
import pytest
import trustme
import uvloop
from aiohttp.abc import AbstractStreamWriter
from aioresponses import aioresponses
from hostile_server import DEEDS, Deed, Exchange, HostileServer

from pipeline.errors import DestinationRefused
from pipeline.model import Answer, Pieces, Request
from pipeline.send.transport import HttpTransport, Timeouts, _Body

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield f"https://localhost:{port}/v1" if tls else f"http://127.0.0.1:{port}/v1/batch"
    finally:
        listening.close()


def transport(timeout: float = 5.0, read: float | None = None, **options: Any) -> HttpTransport:
    return HttpTransport(
        connections=2,
        timeouts=Timeouts(connect=1.0, read=read or timeout, total=timeout),
        user_agent="retl-test",
        **options,
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


HEAD, RUN = 2**16, 2**20  # as much leaves with the head, and at once after it
TEXT = Random(7).randbytes(4 * RUN)
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
BODIES = {  # the sizes of their parts
    "none": [0],
    "one byte": [1],
    "with the head": [HEAD],
    "just too large for that": [HEAD + 1],
    "an end after it": [10, HEAD - 10, 5],
    "a batch": [10, 480_000, 2],
    "a run and an end": [HEAD, RUN, 1],
    "several runs": [10, 2 * RUN + HEAD, 3, 0, 7],
    "many parts": [7] * 20_000,
    "runs over parts": [3 * RUN, 100, RUN - 100],
    "nothing after it": [10, 480_000, 0],
    "nothing after a run": [HEAD, RUN, 0, 0],
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("sizes", BODIES.values(), ids=BODIES)
def test_a_body_arrives_as_it_is_however_it_lies(
    sizes: list[int], scheme: str, loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    edges = [0, *accumulate(sizes)]
    pieces = [memoryview(TEXT)[start:stop] for start, stop in pairwise(edges)]
    parts = [part if index % 2 else bytes(part) for index, part in enumerate(pieces)]
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    async def post() -> Answer:
        one = transport(ca_file=tmp_path / "ca.pem")
        async with server(answering(OK, seen), context if scheme == "https" else None) as url:
            request = Request(url=url, headers={}, body=Pieces(tuple(parts)))
            answers = [await one.post(request) for _ in range(2)]
        await one.close()
        return answers[1]

    seen: list[tuple[dict[str, str], bytes]] = []
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(post()).status == 200
    assert [body == TEXT[: edges[-1]] for _, body in seen] == [True, True]


@pytest.mark.parametrize(("size", "writes"), [(1000, 1), (HEAD - 2, 1), (480_000, 2)])
async def test_a_write_is_a_system_call_and_none_is_for_a_few_bytes(size: int, writes: int) -> None:
    written: list[int] = []
    writer = create_autospec(AbstractStreamWriter, instance=True)
    writer.transport = create_autospec(asyncio.WriteTransport, instance=True)
    writer.transport.is_closing.return_value = False
    writer.write.side_effect = lambda chunk: written.append(len(chunk))
    writer.transport.write.side_effect = lambda chunk: written.append(len(chunk))
    writer.transport.writelines.side_effect = lambda chunks: written.append(sum(map(len, chunks)))
    await _Body(Pieces((b"[", TEXT[:size], b"]"))).write(writer)
    assert (len(written), sum(written)) == (writes, size + 2)
    assert written[0] == min(size + 2, HEAD)


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
        (_garbage, "bad_answer"),
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


class Bytes(bytearray):
    """Some that can be referred to weakly."""


async def _nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"nothing")
    await reader.read()


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("word", ["connect", "dns", "certificate_untrusted", "tls", "reset"])
def test_what_was_not_sent_is_not_kept(
    word: str,
    encoding: str,
    loop: Callable[[], asyncio.AbstractEventLoop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)

    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    async def post() -> tuple[str | None, bool]:
        one, body = transport(), Bytes(TEXT[:480_000])
        secure = context if word == "certificate_untrusted" else None
        async with server(_close_at_once if word == "reset" else _nothing, secure) as listening:
            url = {
                "connect": "http://127.0.0.1:1/v1",
                "dns": "https://unknown.test/v1",
                "tls": listening.replace("http:", "https:"),
            }.get(word, listening)
            if word == "dns":
                monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", unknown)
            kept = weakref.ref(body)
            request = Request(
                url=url, headers={}, body=Pieces((memoryview(body),)), encoding=encoding
            )
            del body
            answer = await one.post(request)
            del request
            for _ in range(200):  # the thread that packed it lets go a moment later
                if kept() is None:
                    break
                await asyncio.sleep(0.01)
            gone = kept() is None
        await one.close()
        return answer.error, gone

    gc.disable()  # what only the collector frees may be kept for long
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            assert runner.run(post()) == (word, True)
    finally:
        gc.enable()


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
        mocked.post("https://example.test/", exception=fault)
        answer = await one.post(Request(url="https://example.test/", headers={}, body=b"{}"))
    await one.close()
    assert answer.error == word


# ------------------------------------------------------------------ against the hostile server


def batch(server: HostileServer, nbytes: int = 100, encoding: str = "identity") -> Request:
    item = b'{"userId":"1","messageId":"m","x":"%s"}' % (b"x" * nbytes)
    body = b'{"batch":[' + item + b"]}"
    return Request(url=f"{server.url}/batch", headers={}, body=body, encoding=encoding)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("close_before_answer", "reset"),
        ("reset_before_answer", "reset"),
        ("reset_in_head", "reset"),
        ("reset_in_body", "broken_answer"),
        ("close_in_body", "broken_answer"),
        ("half_a_chunk", "broken_answer"),
        ("more_than_said", "bad_answer"),
        ("no_http", "bad_answer"),
        ("long_line", "bad_answer"),
        ("many_fields", "bad_answer"),
        ("two_lengths", "bad_answer"),
        ("say_nothing", "read_timeout"),
        ("drip", "timeout"),
        ("drip_body", "timeout"),
        ("reset_before_reading", "reset"),
        ("reset_in_request", "reset"),
        ("read_nothing", "timeout"),
    ],
)
async def test_what_goes_wrong_has_its_word_and_is_never_tried_again(name: str, word: str) -> None:
    before = asyncio.all_tasks()
    one = transport(timeout=0.4, read=0.2)
    async with HostileServer([DEEDS[name]]).serving() as server:
        answer = await one.post(batch(server, 20_000_000))
        assert (answer.status, answer.error) == (0, word)
        assert server.requests == 1
        # The next request has a connection that nothing is wrong with.
        assert (await one.post(batch(server))).status == 200
        server.heal()
        await one.close()
        await server.all_gone()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("name", ["close_before_answer", "reset_before_answer", "reset_in_head"])
async def test_a_kept_connection_that_breaks_is_nothing_to_try_again(
    method: str, name: str
) -> None:
    one = transport()
    async with HostileServer([DEEDS["no_content"]], then=DEEDS[name]).serving() as server:
        request = replace(batch(server), method=method)
        assert (await one.post(request)).status == 204
        answer = await one.post(request)
        await one.close()
        await server.all_gone()
    assert (answer.status, answer.error, server.requests) == (0, "reset", 2)
    assert server.most_open == 1


@pytest.mark.parametrize(
    "name",
    [
        *("garbage_body", "wrong_type", "no_content", "continue_first", "hints_first", "bomb"),
        *("huge_success", "chunked", "close_after_answer", "close_unannounced"),
    ],
)
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_a_success_is_one_in_any_clothes(name: str, encoding: str) -> None:
    one = transport()
    async with HostileServer(then=DEEDS[name]).serving() as server:
        statuses = [(await one.post(batch(server, 1_000, encoding))).status for _ in range(4)]
        await one.close()
        await server.all_gone()
    assert set(statuses) <= {200, 204, 0}
    # One that closes without a word may do so while the next request is on its way.
    assert 0 not in statuses or name == "close_unannounced"
    assert len(server.taken) == len([code for code in statuses if code])


async def test_answers_are_not_unpacked() -> None:
    one = transport()
    async with HostileServer(then=DEEDS["bomb"]).serving() as server:
        answer = await one.post(batch(server))
        await one.close()
    assert answer.body.startswith(b"\x1f\x8b")
    assert len(answer.body) < 65_536


async def test_an_answer_that_was_there_before_its_request_is_nobodys() -> None:
    one = transport()

    async def once_more_and_then_nothing(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.silence()

    script = [DEEDS["answer_twice"], once_more_and_then_nothing]
    async with HostileServer(script).serving() as server:
        assert (await one.post(batch(server))).status == 200
        assert one._session is not None
        [[kept]] = one._session.connector._conns.values()  # type: ignore[union-attr]
        while not kept[0]._buffer:  # noqa: ASYNC110 - aiohttp tells nobody that it is there
            await asyncio.sleep(0)
        answer = await one.post(batch(server))
        await one.close()
        await server.all_gone()
    assert (answer.status, answer.error) == (0, "reset")
    assert len(server.taken) == 1


async def test_a_connection_is_kept_and_serves_one_request_at_a_time() -> None:
    one = transport()
    flying = most = 0

    async def count(exchange: Exchange) -> None:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await exchange.body()
        with pytest.raises(TimeoutError):  # no second one waits behind it
            await asyncio.wait_for(exchange.reader.read(1), 0.001)
        await exchange.answer(200)
        flying -= 1

    async with HostileServer(then=count).serving() as server:
        answers = await asyncio.gather(*[one.post(batch(server)) for _ in range(20)])
        await one.close()
    assert {answer.status for answer in answers} == {200}
    assert (most <= 2, server.most_open <= 2, server.requests) == (True, True, 20)


async def _wait_for_ever(exchange: Exchange) -> None:
    await exchange.server.healed.wait()


async def _half_an_answer(exchange: Exchange) -> None:
    await exchange.body()
    await exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    exchange.server.healed.set()
    await exchange.silence()


@pytest.mark.parametrize("act", [_wait_for_ever, _half_an_answer])
@pytest.mark.parametrize("moments", [0, 1, 2, 3, 5, 8, 30])
async def test_cancelling_leaves_no_connection_and_no_task(act: Deed, moments: int) -> None:
    before = asyncio.all_tasks()
    one = transport()
    async with HostileServer(then=act).serving() as server:
        post = asyncio.create_task(one.post(batch(server, 20_000_000, "gzip" if moments else "")))
        for _ in range(moments):
            await asyncio.sleep(0.001)
        post.cancel()
        with pytest.raises(asyncio.CancelledError):
            await post
        server.heal()
        assert (await one.post(batch(server))).status == 200  # its place is free
        await one.close()
        await server.all_gone()
    assert asyncio.all_tasks() == before


# ---------------------------------------------------------------------------- where to


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fe80::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[fd00:ec2::254]/",
        "https://100.100.100.200/",
        "https://0.0.0.0/",
        "https://[::]/",
        "https://224.0.0.1/",
        "https://other.test/",
        "https://allowed.test.evil.test/",
        "https://below.test/",
    ],
)
async def test_nothing_is_sent_where_nothing_may_be(url: str) -> None:
    names = ("allowed.test", "*.below.test")
    one = transport(allowed_hosts=names if url.endswith(".test/") else ())
    with pytest.raises(DestinationRefused, match="sent to"):
        await one.post(Request(url=url, headers={}, body=b"{}"))
    assert one._session is None


@pytest.mark.parametrize(
    "host", ["allowed.test", "ALLOWED.test.", "a.below.test", "a.b.below.test"]
)
async def test_allowed_hosts_are_asked_for(host: str) -> None:
    one = transport(allowed_hosts=("Allowed.test", "*.below.test"))
    answer = await one.post(Request(url=f"https://{host}/", headers={}, body=b"{}"))
    await one.close()
    assert (answer.status, answer.error) == (0, "dns")  # .test is no domain (RFC 6761)


async def _resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str, port: int = 443) -> None:
    async def getaddrinfo(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


async def test_no_name_leads_to_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    await _resolving(monkeypatch, "169.254.169.254")
    one = transport()
    for host in ("metadata.example", "localhost"):
        with pytest.raises(DestinationRefused, match=f"{host} is an address"):
            await one.post(Request(url=f"https://{host}/", headers={}, body=b"{}"))
    await one.close()


async def test_localhost_is_this_machine_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    await _resolving(monkeypatch, "192.0.2.1")
    one = transport()
    with pytest.raises(DestinationRefused):
        await one.post(Request(url="http://localhost/", headers={}, body=b"{}"))
    await one.close()


async def test_of_several_addresses_those_that_may_be_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with HostileServer().serving() as server:
        port = int(server.url.split(":")[2].split("/")[0])
        await _resolving(monkeypatch, "169.254.169.254", "127.0.0.1", port=port)
        one = transport()
        request = batch(server)
        url = request.url.replace("127.0.0.1", "localhost")
        answer = await one.post(Request(url=url, headers={}, body=request.body))
        await one.close()
    assert answer.status == 200
