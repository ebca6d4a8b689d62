"""Whole runs to every kind of destination, against real receivers on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from aiohttp import web

from pipeline.config import Config, load_config
from pipeline.errors import DestinationRefused
from pipeline.events import Event, Warned
from pipeline.local.customerio.server import serve
from pipeline.model import Result
from pipeline.run.report import RunReport
from pipeline.send.folder import Folder
from pipeline.wiring import open_store, run_sync
from pipeline.wiring.probe import probe

KEY = "hunter2-the-key"
ROWS = 1_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = pa.table(
        {
            "userId": [str(row) for row in range(ROWS)],
            "plan": ["bad" if row in {7, 500} else "free" for row in range(ROWS)],
        }
    )
    pq.write_table(rows, tmp_path / "users.parquet", row_group_size=300)
    return tmp_path


def configure(folder: Path, destination: dict[str, Any], **send: Any) -> Config:
    file = folder / "retl.yml"
    content = {
        "version": 1,
        "sources": {"disk": {"type": "file", "path": "users.parquet"}},
        "destinations": {"out": destination},
        "syncs": {"users": {"source": "disk", "call": "identify", "destinations": ["out"]}},
        "send": {"concurrency": 4, "retry_deadline": "5s"} | send,
    }
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_config(file, {})


async def run(
    folder: Path, destination: dict[str, Any], *, events: list[Event] | None = None, **send: Any
) -> RunReport:
    heard = [] if events is None else events
    return await run_sync(configure(folder, destination, **send), "users", observer=heard.append)


@asynccontextmanager
async def customerio(folder: Path) -> AsyncIterator[str]:
    stop = asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(keys=[KEY], record=folder / "received.ndjson", ready=ready.set_result, stop=stop)
    )
    try:
        yield await ready
    finally:
        stop.set()
        await task


def received(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "received.ndjson").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("keys", "requests"),
    [
        pytest.param({"type": "segment", "write_key": KEY, "endpoint": "/v1"}, 1, id="segment"),
        pytest.param(
            {"type": "rudderstack", "write_key": KEY, "endpoint": ""}, 1, id="rudderstack"
        ),
        pytest.param(
            {"type": "customerio", "api_key": KEY, "endpoint": "/v1", "calls": "single"},
            ROWS,
            id="customerio single",
            marks=pytest.mark.slow,  # a thousand requests
        ),
    ],
)
async def test_every_row_arrives_once(folder: Path, keys: dict[str, Any], requests: int) -> None:
    async with customerio(folder) as url:
        report = await run(folder, keys | {"endpoint": url + keys["endpoint"]}, concurrency=16)
    assert report.result is Result.COMPLETE
    counts = report.destinations["out"]
    assert (counts.delivered, counts.dead_lettered, counts.requests) == (ROWS, 0, requests)
    assert sorted(int(one["userId"]) for one in received(folder)) == list(range(ROWS))


async def test_a_wrong_key_halts(folder: Path) -> None:
    async with customerio(folder) as url:
        keys = {"type": "segment", "write_key": "wrong", "endpoint": f"{url}/v1"}
        report = await run(folder, keys)
    assert report.result is Result.FAILED
    assert report.error is not None
    assert report.error.exit_code == 77


async def test_a_key_of_another_region_is_told_of(folder: Path) -> None:
    events: list[Event] = []
    async with customerio(folder) as url:
        keys = {"type": "customerio", "api_key": "sk_eu_x", "region": "us"}
        config = configure(folder, keys | {"endpoint": f"{url}/v1"})
        await run_sync(config, "users", observer=events.append)
        findings = [finding async for finding in probe(config, "out")]
    texts = [event.text for event in events if isinstance(event, Warned)]
    assert len(texts) == 1
    assert texts[0].startswith("destinations.out: its key is one of region `eu`")
    assert findings[0].what in texts[0]
    assert not [text for text in texts if "sk_eu_x" in text]


# --------------------------------------------------------------------------------- webhooks

Handler = Callable[[web.Request, bytes], web.Response]


@asynccontextmanager
async def receiver(handler: Handler) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        return handler(request, await request.read())

    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/in", handle)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/in"
    finally:
        await runner.cleanup()


async def test_a_signed_webhook_in_lines(folder: Path) -> None:
    rows: list[dict[str, Any]] = []

    def take(request: web.Request, body: bytes) -> web.Response:
        assert (request.method, request.query["source"]) == ("PUT", "retl")
        assert request.headers["Content-Type"] == "application/x-ndjson"
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        assert request.headers["Content-Encoding"] == "gzip"
        plain = zlib.decompress(body, 31)
        signed = f"{request.headers['X-Time']}.".encode() + plain
        expected = hmac.new(KEY.encode(), signed, hashlib.sha256).hexdigest()
        assert request.headers["X-Signature"] == f"sha256={expected}"
        lines = plain.decode().splitlines()
        assert len(lines) <= 300
        rows.extend(json.loads(line) for line in lines)
        return web.Response(status=202)

    async with receiver(take) as url:
        keys = {
            "type": "webhook",
            "url": f"{url}?source=retl",
            "method": "PUT",
            "headers": {"Authorization": f"Bearer {KEY}"},
            "envelope": "ndjson",
            "batch_rows": 300,
            "signature": {"secret": KEY, "timestamp_header": "X-Time"},
        }
        report = await run(folder, keys, compression="gzip")
    assert report.result is Result.COMPLETE
    assert sorted(int(one["userId"]) for one in rows) == list(range(ROWS))


async def test_own_verdicts_find_the_bad_rows(folder: Path) -> None:
    taken: list[int] = []

    def take(request: web.Request, body: bytes) -> web.Response:
        rows = json.loads(body)["events"]
        if any(one["traits"]["plan"] == "bad" for one in rows):
            return web.json_response({"error": "no such plan"}, status=409)
        taken.extend(int(one["userId"]) for one in rows)
        return web.Response(status=418)

    async with receiver(take) as url:
        keys = {
            "type": "webhook",
            "url": url,
            "envelope": {"key": "events"},
            "batch_rows": 100,
            "verdicts": {"409": "split", "4xx": "delivered"},
        }
        config = configure(folder, keys)
        report = await run_sync(config, "users")
    assert report.result is Result.COMPLETE
    assert sorted(taken) == [row for row in range(ROWS) if row not in {7, 500}]
    store = open_store(config)
    letters = [one.letter for one in store.dead_letters()]
    store.close()
    assert sorted(letter.row for letter in letters) == [7, 500]
    assert {(one.reason, one.message) for one in letters} == {("rejected_409", "no such plan")}


async def test_a_reject_verdict_costs_its_whole_batch(folder: Path) -> None:
    def take(request: web.Request, body: bytes) -> web.Response:
        return web.Response(status=404 if len(json.loads(body)) < 300 else 200)

    async with receiver(take) as url:
        keys = {"type": "webhook", "url": url, "batch_rows": 300, "verdicts": {"404": "reject"}}
        report = await run(folder, keys)
    counts = report.destinations["out"]
    assert (counts.delivered, counts.dead_lettered) == (900, 100)


# ------------------------------------------------------------------------------------ files


def parts(path: Path) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for one in sorted(path.iterdir()):
        if one.suffix == ".parquet":
            lines = pq.read_table(one)["payload"].to_pylist()
        else:
            lines = one.read_text(encoding="utf-8").splitlines()
        found[one.name] = [json.loads(line) for line in lines]
    return found


@pytest.mark.parametrize("form", ["ndjson", "parquet"])
async def test_a_folder_gets_a_file_for_every_batch(folder: Path, form: str) -> None:
    out = folder / "lake" / "users"
    keys = {"type": "file", "path": f"file://{out}", "format": form, "file_bytes": "100kB"}
    report = await run(folder, keys)
    assert report.result is Result.COMPLETE
    files = parts(out)
    assert len(files) >= 2
    assert all(name.startswith(f"part-{report.run}-0-") for name in files)
    assert all(name.endswith(f".{form}") for name in files)
    rows = [int(one["userId"]) for part in files.values() for one in part]
    assert sorted(rows) == list(range(ROWS))
    assert report.destinations["out"].requests == len(files)
    again = await run(folder, keys)  # another run adds files of its own
    assert again.run != report.run
    assert len(parts(out)) == 2 * len(files)


async def test_a_run_that_goes_on_replaces_what_it_had_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder / "lake"
    keys = {"type": "file", "path": str(out), "format": "parquet", "file_bytes": "100kB"}
    put, failing, another = Folder.put, [True], threading.Event()

    def fail_first(self: Folder, name: str, data: bytes | pa.Buffer) -> None:
        if failing[0] and name.endswith("-0-0.parquet"):
            assert another.wait(30)
            raise PermissionError(13, "Permission denied")
        put(self, name, data)
        another.set()

    monkeypatch.setattr(Folder, "put", fail_first)
    first = await run(folder, keys)
    assert isinstance(first.error, DestinationRefused)
    assert parts(out)
    failing[0] = False
    second = await run(folder, keys)
    assert (second.run, second.result) == (first.run, Result.COMPLETE)
    rows = [int(one["userId"]) for part in parts(out).values() for one in part]
    assert sorted(rows) == list(range(ROWS))


async def test_a_folder_is_looked_at_by_doctor(folder: Path) -> None:
    async def found(**keys: Any) -> list[str]:
        config = configure(folder, {"type": "file"} | keys)
        return [finding.outcome.value async for finding in probe(config, "out")]

    assert await found(path="lake", format="parquet") == ["ok"]
    assert await found(path="users.parquet", format="parquet") == ["failed"]
    assert await found(path=f"file://{folder}/lake") == ["ok"]
    assert await found(path="nosuch://bucket/x") == ["failed"]
