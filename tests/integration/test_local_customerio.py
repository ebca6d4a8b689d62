"""The local Customer.io, spoken to over HTTP as a client of the real one would."""

from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.local.customerio import serve
from pipeline.local.customerio.items import MalformedError, fault_in, parse_batch, parse_single
from pipeline.local.faults import FaultPlan

GOOD = {"type": "identify", "userId": "1", "traits": {"email": "a@example.com"}}
BAD = {"type": "identify", "traits": {"email": "a@example.com"}}
STRICT = {"X-Strict-Mode": "1"}


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


class Api:
    """A client with a good key."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url, session

    async def post(self, path: str, value: Any, **headers: str) -> tuple[int, Any]:
        response, body = await self.raw(path, value, headers)
        return response.status, json.loads(body)

    async def raw(
        self, path: str, value: Any, headers: dict[str, str] | None = None
    ) -> tuple[aiohttp.ClientResponse, str]:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        headers = {"Authorization": basic("key:"), **(headers or {})}
        url = self.url + path
        async with self.session.post(
            url, data=io.BytesIO(data), headers=headers, allow_redirects=False
        ) as response:
            return response, await response.text()

    async def get(self, path: str) -> Any:
        async with self.session.get(self.url + path) as response:
            return await response.json()

    async def stats(self) -> dict[str, Any]:
        stats = await self.get("/_local/stats")
        assert isinstance(stats, dict)
        return stats

    async def received(self, query: str = "") -> list[Any]:
        return list((await self.get(f"/_local/received{query}"))["received"])


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Api]:
    stop = asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    if isinstance(options.get("faults"), str):
        options["faults"] = FaultPlan.parse(options["faults"])
    server = asyncio.create_task(serve(ready=ready.set_result, stop=stop, **options))
    waited: list[asyncio.Future[Any]] = [server, ready]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        server.result()
    try:
        async with aiohttp.ClientSession() as session:
            yield Api(await ready, session)
    finally:
        stop.set()
        await server


def errors(body: Any) -> list[str]:
    assert set(body) == {"meta"}
    return list(body["meta"]["errors"])


def batch(*items: Any) -> dict[str, Any]:
    return {"batch": list(items)}


# ------------------------------------------------------------------------------- who asks


@pytest.mark.parametrize(
    ("header", "keys", "status"),
    [
        (basic("key:"), None, 200),
        (basic("wrong:"), None, 401),
        (basic(":"), None, 401),
        (basic("key:password"), None, 401),
        ("Basic not-base64", None, 401),
        ("Basic a2V5", None, 401),  # No colon.
        ("Bearer pk_us_1", None, 200),
        ("Bearer wrong", None, 401),
        ("Bearer ", None, 401),
        ("Digest key", None, 401),
        ("", None, 401),
        ("Bearer one", ["one", "two"], 200),
        ("Bearer three", ["one", "two"], 401),
        ("Bearer wrong", ["wrong"], 200),
    ],
)
async def test_keys(header: str, keys: list[str] | None, status: int) -> None:
    async with running(keys=keys) as api:
        answer, body = await api.post("/v1/identify", GOOD, Authorization=header)
        assert answer == status
        assert (await api.stats())["accepted"] == (1 if status == 200 else 0)
    if status == 401:
        assert len(errors(body)) == 1
    else:
        assert body == {}


# ------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize(
    ("call", "item", "fault"),
    [
        ("identify", {"userId": "1"}, None),
        ("identify", {"anonymousId": "1"}, None),
        ("identify", {"userId": "", "traits": {"email": "a@b.c"}}, None),
        ("identify", {"traits": {"email": "a@b.c"}}, "userId: required"),
        ("identify", {"userId": ""}, "userId: required"),
        ("identify", {"userId": None}, "userId: required"),
        ("identify", {"userId": 7}, "userId: must be a string"),
        ("identify", {"userId": "1", "traits": []}, "traits: must be an object"),
        ("identify", {"userId": "1", "messageId": 7}, "messageId: must be a string"),
        ("identify", {"userId": "1", "timestamp": 1700000000}, "timestamp: must be an ISO"),
        ("identify", {"userId": "1", "timestamp": "yesterday!"}, "timestamp: must be an ISO"),
        ("identify", {"userId": "1", "timestamp": "2026-01-02T03:04:05.678Z"}, None),
        ("track", {"userId": "1", "event": "x"}, None),
        ("track", {"anonymousId": "1", "event": "x"}, None),
        ("track", {"groupId": "1", "event": "x"}, None),
        ("track", {"event": "x"}, "userId: required"),
        ("track", {"userId": "1"}, "event: required"),
        ("track", {"userId": "1", "event": ""}, "event: required"),
        ("page", {"userId": "1"}, None),
        ("page", {"name": "x"}, "userId: required"),
        ("screen", {"anonymousId": "1"}, None),
        ("screen", {"name": "x"}, "userId: required"),
        ("group", {"groupId": "1"}, None),
        ("group", {"userId": "1"}, "groupId: required"),
        ("alias", {"userId": "1", "previousId": "2"}, None),
        ("alias", {"userId": "1"}, "previousId: required"),
        ("alias", {"previousId": "1"}, "userId: required"),
    ],
)
async def test_each_call_alone_and_in_a_batch(
    call: str, item: dict[str, Any], fault: str | None
) -> None:
    async with running() as api:
        single, body = await api.post(f"/v1/{call}", item, **STRICT)
        together, in_batch = await api.post("/v1/batch", batch({"type": call, **item}), **STRICT)
    if fault is None:
        assert (single, together, body, in_batch) == (200, 200, {}, {})
    else:
        assert (single, together) == (400, 400)
        assert errors(body)[0].startswith(fault)
        assert errors(in_batch)[0].startswith(f"batch[0].{fault}")


async def test_strict_mode_names_each_fault_and_takes_nothing(tmp_path: Path) -> None:
    async with running(record=tmp_path / "record") as api:
        status, body = await api.post("/v1/batch", batch(GOOD, BAD, 3, {"type": "x"}), **STRICT)
        assert status == 400
        assert [text.partition(":")[0] for text in errors(body)] == [
            "batch[1].userId",
            "batch[2].must be an object",
            "batch[3].type",
        ]
        assert await api.received() == []
        assert (await api.stats())["dropped"] == {}


async def test_without_strict_mode_faults_are_answered_200_and_lost(tmp_path: Path) -> None:
    async with running(record=tmp_path / "record") as api:
        assert await api.post("/v1/batch", batch(BAD, GOOD)) == (200, {})
        assert await api.received() == [GOOD]
        stats = await api.stats()
    assert (stats["accepted"], stats["dropped"]) == (1, {"invalid": 1})
    assert stats["drops"] == [{"reason": "invalid", "index": 0, "bytes": len(json.dumps(BAD))}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"\xff",
        b'{"batch":{}}',
        b'{"batch":[{]}',
        b'{"batch":[NaN]}',
        b'{"batch":[1,%s]}' % (b"[" * 1000 + b"]" * 1000),
    ],
)
async def test_malformed_bodies_are_400_in_any_mode(body: bytes) -> None:
    async with running() as api:
        for headers in ({}, STRICT):
            status, answer = await api.post("/v1/batch", body, **headers)
            assert status == 400
            assert len(errors(answer)) == 1
    with pytest.raises(MalformedError):
        parse_batch(body)


async def test_unknown_paths_and_methods() -> None:
    async with running() as api:
        assert (await api.post("/v1/nothing", GOOD))[0] == 404
        assert (await api.post("/batch", GOOD))[0] == 404
        async with api.session.get(api.url + "/v1/batch") as response:
            assert response.status == 405
            assert response.headers["Allow"] == "POST"
            assert errors(await response.json()) == ["Method Not Allowed"]


# ------------------------------------------------------------------------------- limits


def sized(nbytes: int) -> bytes:
    """An identify call of exactly so many bytes."""
    frame = len(json.dumps({**GOOD, "pad": ""}))
    return json.dumps({**GOOD, "pad": "x" * (nbytes - frame)}).encode()


@pytest.mark.parametrize(
    ("path", "body", "taken"),
    [
        ("identify", sized(32_000), 1),
        ("identify", sized(32_001), 0),
        ("batch", b'{"batch":[%s,%s]}' % (sized(32_001), sized(32_000)), 1),
        ("batch", b'{"batch":[%s]}' % b",".join([sized(31_249)] * 16), 0),
    ],
)
async def test_over_the_limits_is_200_and_lost_or_413(path: str, body: bytes, taken: int) -> None:
    too_large = path == "batch" or taken == 0
    async with running() as api:
        assert await api.post(f"/v1/{path}", body, **STRICT) == (200, {})
        stats = await api.stats()
        assert stats["accepted"] == taken
        assert stats["dropped"] == ({"oversize": 1} if too_large else {})
    async with running(oversize="413") as api:
        status, answer = await api.post(f"/v1/{path}", body, **STRICT)
        assert status == (413 if too_large else 200)
        assert (await api.stats())["accepted"] == (0 if too_large else 1)
        if too_large:
            assert "bytes, more than" in errors(answer)[0]


async def test_a_batch_of_exactly_the_limit_goes_through() -> None:
    body = b'{"batch":[%s]}' % b",".join([sized(31_248)] * 15 + [sized(31_252)])
    assert len(body) == 499_999
    async with running() as api:
        assert (await api.post("/v1/batch", body + b" "))[0] == 200
        assert (await api.stats())["accepted"] == 16


async def test_a_body_beyond_reason_is_413() -> None:
    async with running() as api:
        status, answer = await api.post("/v1/batch", b" " * (17 * 2**20))
        assert status == 413
        assert "more than" in errors(answer)[0]


async def test_requests_above_the_rate_limit_are_429() -> None:
    async with running(rate_limit=0.001) as api:
        assert (await api.post("/v1/identify", GOOD))[0] == 200
        response, body = await api.raw("/v1/identify", GOOD)
        assert response.status == 429
        assert int(response.headers["Retry-After"]) in range(900, 1001)
        assert errors(json.loads(body)) == ["too many requests"]
        assert (await api.stats())["outcomes"] == {"200": 1, "429": 1}


# ------------------------------------------------------------------------------- gzip


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(json.dumps(GOOD).encode()), "gzip", 200),
        (gzip.compress(json.dumps(GOOD).encode()), "GZIP", 200),
        (json.dumps(GOOD).encode(), "identity", 200),
        (json.dumps(GOOD).encode(), "gzip", 400),
        (gzip.compress(json.dumps(GOOD).encode())[:-5], "gzip", 400),
        (gzip.compress(json.dumps(GOOD).encode()) + b"more", "gzip", 400),
        (gzip.compress(b" " * (32 * 2**20), 9), "gzip", 413),
        (json.dumps(GOOD).encode(), "br", 415),
    ],
)
async def test_content_encodings(body: bytes, encoding: str, status: int) -> None:
    async with running() as api:
        answer = await api.post("/v1/identify", body, **{"Content-Encoding": encoding})
        stats = await api.stats()
    assert answer[0] == status
    assert stats["wire_bytes"] == len(body)
    assert stats["body_bytes"] == (len(json.dumps(GOOD)) if status == 200 else 0)


# ------------------------------------------------------------------------------- the record


async def test_calls_are_recorded_byte_for_byte(tmp_path: Path) -> None:
    record = tmp_path / "record.ndjson"
    exact = b'{"type":"track","userId":"1","event":"}{,","properties":{"n":1.10000000000000000001}}'
    async with running(record=record) as api:
        await api.post("/v1/batch", b'{"batch":[%s,%s]}' % (exact, exact))
        await api.post("/v1/track", exact.replace(b'"type":"track",', b""))
        await api.stats()  # What is counted is in the file.
        assert record.read_bytes() == (exact + b"\n") * 3
        assert len(await api.received()) == 3
    assert record.read_bytes() == (exact + b"\n") * 3


async def test_a_full_disk_is_the_local_services_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.local.customerio.record.Record.accept", fail)
    async with running() as api:
        status, body = await api.post("/v1/batch", batch(GOOD), **STRICT)
    assert status == 500
    assert errors(body) == ["the local service can't record: No space left on device"]


async def test_received_is_filtered_and_limited(tmp_path: Path) -> None:
    page = {"type": "page", "userId": "2"}
    async with running(record=tmp_path / "record") as api:
        await api.post("/v1/batch", batch(GOOD, page, {**GOOD, "userId": "2"}))
        assert await api.received("?type=page") == [page]
        assert await api.received("?user_id=1") == [GOOD]
        assert await api.received("?user_id=2&type=identify") == [{**GOOD, "userId": "2"}]
        assert await api.received("?limit=2") == [GOOD, page]
        for query in ("?type=x", "?limit=0", "?limit=x", "?limit=999999"):
            assert len(errors(await api.get(f"/_local/received{query}"))) == 1


async def test_nothing_received_without_a_record() -> None:
    async with running() as api:
        assert "nothing is recorded" in errors(await api.get("/_local/received"))[0]


async def test_message_ids_are_counted_when_asked_for() -> None:
    one, two = {**GOOD, "messageId": "one"}, {**GOOD, "messageId": "two"}
    for unique, expected in ((True, (2, 1)), (False, (None, None))):
        async with running(unique=unique) as api:
            await api.post("/v1/batch", batch(one, two, one, GOOD))
            stats = await api.stats()
            assert (stats["unique_message_ids"], stats["duplicates"]) == expected
            assert stats["calls"] == {"identify": 4}


async def test_reset_forgets_counts_and_content(tmp_path: Path) -> None:
    async with running(record=tmp_path / "record", unique=True) as api:
        before = await api.stats()
        await api.post("/v1/batch", batch({**GOOD, "messageId": "one"}))
        async with api.session.post(api.url + "/_local/reset") as response:
            assert response.status == 200
        assert await api.stats() == before
        assert await api.received() == []
        await api.post("/v1/batch", batch(GOOD))
        assert await api.received() == [GOOD]


async def test_sink_mode_counts_requests_and_bytes_only() -> None:
    async with running(mode="sink") as api:
        for body in (b'{"batch":[]}', b"not even json", b"x" * 600_000):
            assert await api.post("/v1/batch", body) == (200, {})
        stats = await api.stats()
    assert (stats["requests"], stats["wire_bytes"], stats["accepted"]) == (3, 600_025, 0)


# ------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("do", "status", "headers", "taken"),
    [
        ("{status: 503}", 503, {}, 0),
        ("{status: 429, retry_after: 2}", 429, {"Retry-After": "2"}, 0),
        ("{status: 307}", 307, {"Location": "/v1/elsewhere"}, 0),
        ("{status: 503, taken: true}", 503, {}, 1),
        ("{error: UNAVAILABLE}", 503, {}, 0),
    ],
)
async def test_a_status_from_the_plan(
    do: str, status: int, headers: dict[str, str], taken: int
) -> None:
    async with running(faults=f"- {{on: identify, do: {do}}}") as api:
        response, body = await api.raw("/v1/identify", GOOD)
        assert response.status == status
        assert errors(json.loads(body)) == [f"{status} by the fault plan"]
        assert headers.items() <= dict(response.headers).items()
        assert (await api.stats())["accepted"] == taken
        assert await api.post("/v1/identify", GOOD) == (200, {})


async def test_retry_after_as_a_date() -> None:
    plan = "- {on: identify, do: {status: 429, retry_after: http-date 3600}}"
    async with running(faults=plan) as api:
        response, _ = await api.raw("/v1/identify", GOOD)
    ahead = parsedate_to_datetime(response.headers["Retry-After"]) - parsedate_to_datetime(
        response.headers["Date"]
    )
    assert 3590 <= ahead.total_seconds() <= 3610


async def test_garbage_with_200() -> None:
    async with running(faults='- {on: batch, do: {status: 200, body: "<html>"}}') as api:
        response, body = await api.raw("/v1/batch", batch(GOOD))
        assert (response.status, body) == (200, "<html>")
        assert (await api.stats())["accepted"] == 1


@pytest.mark.parametrize(("taken", "accepted"), [("false", 0), ("true", 1)])
async def test_a_reset_before_or_after_the_work(taken: str, accepted: int) -> None:
    plan = f"- {{on: batch, do: {{reset: true, taken: {taken}}}}}"
    async with running(faults=plan) as api:
        with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            await api.post("/v1/batch", batch(GOOD))
        stats = await api.stats()
        assert (stats["accepted"], stats["outcomes"]) == (accepted, {"reset": 1})
        assert await api.post("/v1/batch", batch(GOOD)) == (200, {})


async def test_a_hang_lasts_until_the_server_stops() -> None:
    async with running(faults="- {on: batch, do: {hang: true, taken: true}}") as api:
        hanging = asyncio.create_task(api.post("/v1/batch", batch(GOOD)))
        while (await api.stats())["accepted"] == 0:
            pass
        assert not hanging.done()
        assert (await api.stats())["in_flight"] == 1
    with pytest.raises(aiohttp.ClientError):
        await hanging


async def test_latency_and_delays_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with running(latency=0.25, faults="- {on: batch, do: {delay: 0.5}}") as api:
        monkeypatch.setattr("pipeline.local.customerio.service.asyncio.sleep", sleep)
        assert await api.post("/v1/batch", batch(GOOD)) == (200, {})
        assert await api.post("/v1/batch", batch(GOOD)) == (200, {})
        monkeypatch.undo()
    assert slept == [0.75, 0.25]


async def test_the_plan_is_read_and_replaced_while_running() -> None:
    async with running(faults="- {on: batch, do: {status: 503}}") as api:
        await api.post("/v1/batch", batch(GOOD))
        shown = await api.get("/_local/faults")
        assert shown["plan"].startswith("- {on: batch")
        assert (shown["seen"], shown["fired"]) == ({"batch": 1}, [1])
        text = "- {on: identify, do: {status: 500}}"
        async with api.session.put(api.url + "/_local/faults", data=text) as response:
            assert (await response.json())["plan"] == text
        assert (await api.post("/v1/identify", GOOD))[0] == 500
        async with api.session.put(api.url + "/_local/faults", data="- 3") as response:
            assert response.status == 400
            assert "rule 1" in errors(await response.json())[0]


# ------------------------------------------------------------------------------- the process


async def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(faults="- {on: batch, do: {reset: true}}") as api:
        with pytest.raises(aiohttp.ClientError):
            await api.post("/v1/batch", batch(GOOD))
        await api.post("/v1/batch", b"{")
        # A client that leaves in the middle of its body.
        port = int(api.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        await writer.drain()
        while (await api.stats())["in_flight"] == 0:
            pass
        writer.transport.abort()
        while (await api.stats())["in_flight"] == 1:
            pass
        assert (await api.stats())["outcomes"] == {"reset": 1, "400": 1, "disconnected": 1}
    assert capfd.readouterr() == ("", "")


async def test_a_taken_port_and_an_unwritable_record_are_config_errors(tmp_path: Path) -> None:
    async with running() as api:
        port = int(api.url.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: .*in use"):
            async with running(port=port):
                pass
    with pytest.raises(ConfigError, match="can't write"):
        async with running(record=tmp_path / "missing" / "record"):
            pass


# ------------------------------------------------------------------------------- bodies

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\}{,:[]é\n '),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab:}"), inner),
    max_leaves=8,
)


@given(
    items=st.lists(JSON, max_size=5),
    style=st.fixed_dictionaries(
        {
            "separators": st.sampled_from([(", ", " : "), (",", ":")]),
            "ensure_ascii": st.booleans(),
            "indent": st.none() | st.just(1),
        }
    ),
    before=st.dictionaries(st.sampled_from("xy"), JSON, max_size=1),
    after=st.dictionaries(st.sampled_from("zw"), JSON, max_size=1),
)
def test_any_well_formed_batch_is_split_into_its_elements(
    items: list[Any], style: dict[str, Any], before: dict[str, Any], after: dict[str, Any]
) -> None:
    body = json.dumps({**before, "batch": items, **after}, **style).encode()
    parsed = parse_batch(body)
    assert len(parsed.lines) == len(items)
    for line, item, expected in zip(parsed.lines, parsed.items, items, strict=True):
        assert b"\n" not in line
        assert json.loads(line) == expected
        assert fault_in(item) is not None


def test_huge_numbers_are_kept() -> None:
    number = b"1" * 300
    assert parse_batch(b'{"batch": [%s]}' % number).lines == [number]


def test_a_pretty_printed_single_call_becomes_one_line() -> None:
    parsed = parse_single("page", b' {\n "userId" : "1"\r\n} ')
    assert parsed.lines == [b'{"type":"page","userId" : "1"  }']
    assert json.loads(parsed.lines[0]) == parsed.items[0] == {"type": "page", "userId": "1"}
    assert parse_single("page", b"{ }").lines == [b'{"type":"page"}']
    assert parse_single("page", b"[]").lines == [b"[]"]
