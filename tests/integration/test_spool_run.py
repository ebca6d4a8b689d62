"""The spool in whole runs: local BigQuery, the engine, local Customer.io."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from local_system import Starter, System, system

from pipeline.config import load_config
from pipeline.events import Spooled, Warned
from pipeline.local.bigquery.server import Address
from pipeline.local.bigquery.sessions import Session, Sessions, Stream
from pipeline.model import Answer, Request, Result
from pipeline.send.transport import HttpTransport
from pipeline.wiring import open_store

__all__ = ["system"]

ROWS = 20_000
# A plan of nothing: it counts the calls all the same.
COUNTED = "[{on: nothing, do: {delay: 0}}]"
STREAMS = 8  # of two read at a time
ALWAYS = {"RETL_SPOOL_DIR": "spool", "RETL_SPOOL__WHEN": "always", "RETL_READ_STREAMS": "2"}


@dataclass
class World:
    """expired: of all sessions. go: until then no request leaves."""

    expired: bool = False
    go: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    ours, check, post = World(), Sessions.check, HttpTransport.post

    def checked(self: Sessions, session: Session, stream: Stream) -> None:
        if ours.expired:
            session.close()
        check(self, session, stream)

    async def held(self: HttpTransport, request: Request) -> Answer:
        await ours.go.wait()
        return await post(self, request)

    monkeypatch.setattr(Sessions, "check", checked)
    monkeypatch.setattr(HttpTransport, "post", held)
    return ours


def ends(one: System) -> int:
    return len(list((one.folder / "spool").rglob("*.end")))


@asynccontextmanager
async def spooling(one: System, **env: str) -> AsyncIterator[tuple[asyncio.Task[Any], Path]]:
    """A run of which everything is on disk and nothing is sent yet; stopped in the end."""
    stop = asyncio.Event()
    running = asyncio.create_task(one.run(stop=stop, **ALWAYS, **env))
    spool = one.folder / "spool"
    while await asyncio.to_thread(ends, one) < STREAMS:
        assert not running.done(), running.result()
        await asyncio.sleep(0.01)
    try:
        yield running, spool
    finally:
        stop.set()
        await running


async def test_a_run_outlives_its_session(system: Starter, world: World) -> None:
    async with (
        system(rows=ROWS, bigquery_faults=COUNTED) as one,
        spooling(one) as (running, spool),
    ):
        before = dict(one.plan.seen())
        world.expired = True
        world.go.set()
        report = await running
        assert report.result is Result.COMPLETE, report.error
        assert (report.rows, report.destinations["cio"].delivered) == (ROWS, ROWS)
        assert report.restarts == {}
        assert one.plan.seen() == before
        assert before["read_rows"] == STREAMS
        assert list(spool.iterdir()) == []
    delivered = [call["userId"] for call in one.received()]
    assert sorted(map(int, delivered)) == list(range(1, ROWS + 1))
    assert [event.on_disk for event in one.events if isinstance(event, Spooled)][-1] == 0


async def test_a_restart_on_the_same_volume_needs_no_bigquery(
    system: Starter, world: World
) -> None:
    async with system(rows=ROWS, bigquery_faults=COUNTED) as one:
        async with spooling(one, RETL_DRAIN="0s") as (running, spool):
            pass
        assert running.result().result is Result.INTERRUPTED
        assert list(spool.rglob("*.arrow"))

        world.go.set()
        where, nowhere = one.address, Address(rest="http://127.0.0.1:9", storage="127.0.0.1:9")
        one.address = nowhere
        report = await one.run(**ALWAYS)
        one.address = where
        assert report.result is Result.COMPLETE, report.error
        assert report.destinations["cio"].delivered == ROWS
        assert list(spool.iterdir()) == []
    delivered = [call["userId"] for call in one.received()]
    assert sorted(map(int, delivered)) == list(range(1, ROWS + 1))


@pytest.mark.parametrize("query", ["id AS userId, name", "id AS userId"], ids=["same", "changed"])
@pytest.mark.parametrize("env", [{}, ALWAYS | {"RETL_SPOOL_DIR": "new"}], ids=["unset", "changed"])
async def test_rows_in_a_directory_that_is_not_the_configured_one_do_not_stay(
    system: Starter, world: World, env: dict[str, str], query: str
) -> None:
    async with system(rows=ROWS, bigquery_faults=COUNTED) as one:
        async with spooling(one, RETL_DRAIN="0s") as (running, spool):
            pass
        assert running.result().result is Result.INTERRUPTED
        assert list(spool.rglob("*.arrow"))

        world.go.set()
        report = await one.run(f"SELECT {query} FROM app.users", **env)
        assert report.result is Result.COMPLETE, report.error
        assert report.destinations["cio"].delivered == ROWS
        assert list(spool.iterdir()) == []
        told = [event.text for event in one.events if isinstance(event, Warned)]
        gone_on_with = query == "id AS userId, name"
        assert len([text for text in told if str(spool) in text]) == gone_on_with


async def test_rows_of_a_sync_that_nothing_goes_on_with_do_not_stay(
    system: Starter, world: World
) -> None:
    async with system(rows=ROWS, bigquery_faults=COUNTED) as one:
        async with spooling(one, RETL_DRAIN="0s") as (_running, spool):
            pass
        config = load_config(one.folder / "retl.yml", {})
        with closing(open_store(config)) as store:
            store.set_window("users", 0)
        (path,) = spool.iterdir()
        path.rename(spool / path.name.replace("users", "formerly"))
        world.go.set()
        report = await one.run(**ALWAYS)
        assert report.result is Result.COMPLETE, report.error
        assert list(spool.iterdir()) == []


async def test_a_folder_that_can_not_be_used_is_found_before_the_query_runs(
    system: Starter,
) -> None:
    async with system(rows=10, bigquery_faults=COUNTED) as one:
        (one.folder / "spool").touch()
        before = dict(one.plan.seen())
        report = await one.run(**ALWAYS)
        assert (report.result, report.exit_code) == (Result.FAILED, 78)
        assert "RETL_SPOOL_DIR" in str(report.error)
        assert one.plan.seen() == before


@pytest.mark.slow
async def test_kills_lose_nothing_and_what_is_on_disk_is_not_read_again(system: Starter) -> None:
    environment = os.environ | ALWAYS | {"PYTHONPATH": str(Path(__file__).parents[2])}
    environment |= {"RETL_BUFFER_BYTES": "1MB", "RETL_CONCURRENCY": "2"}
    query = "SELECT id AS userId, REPEAT('x', 500) AS name FROM app.users"
    async with system(rows=ROWS, bigquery_faults=COUNTED, latency=0.05) as one:
        await one.run("SELECT id AS userId FROM app.users LIMIT 0")  # writes retl.yml
        config = (one.folder / "retl.yml").read_text(encoding="utf-8")
        config = config.replace("SELECT id AS userId FROM app.users LIMIT 0", query)
        (one.folder / "retl.yml").write_text(config, encoding="utf-8")
        codes, asked = [], 0
        for wait in (0, 3, 3, None):
            before = (await one.stats())["requests"]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "pipeline", "run", "users"),
                cwd=one.folder,
                env=environment,
                stderr=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
            )
            while wait is not None and process.returncode is None:
                sent = (await one.stats())["requests"] - before > wait
                if sent and (not codes or await asyncio.to_thread(ends, one) == STREAMS):
                    process.send_signal(signal.SIGKILL)
                    break
                await asyncio.sleep(0.01)
            codes.append(await process.wait())
            asked = asked or (len(codes) == 2 and one.plan.seen()["read_rows"])
        stats = await one.stats()
        assert list((one.folder / "spool").iterdir()) == []
    arrived = one.received()
    assert codes == [-signal.SIGKILL] * 3 + [0]
    assert {call["userId"] for call in arrived} == {str(row) for row in range(1, ROWS + 1)}
    assert stats["unique_message_ids"] == ROWS
    assert one.plan.seen()["read_rows"] == asked  # the second process had it all on disk
