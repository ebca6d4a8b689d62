"""Every case of hostile.yml through a whole run: sent = delivered + dead-lettered, always."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trustme
import yaml
from hostile_server import BAD, DEEDS, Deed, HostileServer

from pipeline.config import Config
from pipeline.events import Attempted, Encoded, Event, Settled
from pipeline.run.report import RunReport
from pipeline.wiring import open_store, run_sync

ROWS = 400
FILE = Path(__file__).with_name("hostile.yml")
CASES: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
USERS = {str(row) for row in range(ROWS)}
CONCURRENCY = 4
SEND = {
    "concurrency": CONCURRENCY,
    "retry_deadline": "20s",
    "timeout": "2s",
    "connect_timeout": "1s",
}
KEYS = {"name", "script", "then", "tls", "endpoint", "send", "ends", "seen", "dead", "repeats"}


def deeds(script: Sequence[str]) -> list[Deed]:
    found: list[Deed] = []
    for entry in script:
        count, _, name = entry.rpartition("*")
        found += [DEEDS[name]] * int(count or 1)
    return found


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 KB each, so that they make several requests, and those don't fit a socket's buffer."""
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    names = [f"{row} " + "x" * 10_000 for row in range(ROWS)]
    pq.write_table(pa.table({"userId": sorted(USERS, key=int), "name": names}), path)
    return path


@dataclass
class Certificates:
    authority: trustme.CA = field(default_factory=trustme.CA)

    def context(self, kind: str) -> ssl.SSLContext:
        authority = trustme.CA() if kind == "untrusted" else self.authority
        ends = datetime.now(UTC) + timedelta(days=-1 if kind == "expired" else 1)
        name = "other.test" if kind == "hostname" else "localhost"
        starts = ends - timedelta(days=9)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name, not_before=starts, not_after=ends).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@dataclass
class Client:
    folder: Path
    rows: Path
    send: dict[str, Any]
    ca_file: Path | None
    events: list[Event] = field(default_factory=list)

    def config(self, endpoint: str) -> Config:
        return Config.model_validate(
            {
                "version": 1,
                "sources": {"lake": {"type": "file", "path": str(self.rows)}},
                "destinations": {
                    "cio": {"type": "customerio", "api_key": "key", "endpoint": endpoint}
                },
                "syncs": {"users": {"source": "lake", "call": "identify", "destinations": ["cio"]}},
                "send": {**SEND, **self.send},
                "http": {"ca_file": self.ca_file and str(self.ca_file)},
                "state": f"sqlite:///{self.folder}/state.db",
            }
        )

    async def run(self, endpoint: str) -> RunReport:
        return await run_sync(self.config(endpoint), "users", observer=self.events.append)

    def dead(self) -> set[str]:
        """The users whose rows are dead letters; the rows are in the users' order."""
        store = open_store(self.config("https://localhost"))
        found = {str(one.letter.row) for one in store.dead_letters(limit=ROWS)}
        store.close()
        return found

    def settled(self) -> int:
        return sum(one.delivered for one in self.events if isinstance(one, Settled))

    def seen(self) -> set[str | int]:
        return {one.error or one.status for one in self.events if isinstance(one, Attempted)}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[one["name"] for one in CASES])
async def test_no_row_is_lost_and_none_comes_twice_without_need(
    case: dict[str, Any],
    rows: Path,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert set(case) <= KEYS
    monkeypatch.setattr("pipeline.send.retry.RetryPolicy.wait", lambda *_: 0.001)
    before = asyncio.all_tasks()
    client = Client(tmp_path, rows, case.get("send", {}), None)
    server = HostileServer(deeds(case.get("script", [])), DEEDS[case.get("then", "good")])
    async with AsyncExitStack() as stack:
        context = None
        if "tls" in case:
            client.ca_file = tmp_path / "ca.pem"
            certificates.authority.cert_pem.write_to_path(client.ca_file)
            context = certificates.context("good")
            server.certificate = certificates.context(case["tls"])
        await stack.enter_async_context(server.serving(context))

        report = await client.run(case.get("endpoint", server.url))
        assert report.exit_code == case.get("ends", 0), report.error
        first_time = list(server.taken)
        if report.exit_code:
            # What it says was delivered, was; more may have been, but never less.
            known = sum(taken.known for taken in first_time)
            assert client.settled() <= known
            server.heal()
            server.certificate = context
            report = await client.run(server.url)
            assert report.exit_code == 0, report.error
        server.heal()
        await server.all_gone()  # no connection outlives its run
    assert asyncio.all_tasks() == before
    assert server.paths == {"/v1/batch"}, "a redirect was followed"
    assert server.most_open <= 2 * CONCURRENCY  # while some are closing

    dead = client.dead()
    counts = report.destinations["cio"]
    assert counts.read == counts.delivered + counts.dead_lettered == ROWS
    assert len(dead) == counts.dead_lettered == case.get("dead", 0)
    assert dead <= BAD
    taken = Counter(one.user for one in server.taken)
    assert taken.keys() == USERS - dead
    assert len({(one.user, one.message_id) for one in server.taken}) == len(taken)
    assert set(case["seen"]) <= client.seen()
    if "ends" in case:
        return
    assert client.settled() == ROWS - len(dead)
    assert sum(one.rows for one in client.events if isinstance(one, Encoded)) == ROWS
    told = Counter(one.user for one in server.taken if one.known)
    match case.get("repeats", "none"):
        case "none":
            assert set(taken.values()) == {1}
        case "some":
            assert max(taken.values()) > 1
            assert set(told.values()) == {1}, "a row came again although it was told so"
        case _:
            assert case["repeats"] == "maybe"


def test_every_deed_is_done() -> None:
    """None is there for show."""
    done = {name for case in CASES for name in [*case.get("script", []), case.get("then", "good")]}
    assert {name.rpartition("*")[2] for name in done} == set(DEEDS)
