"""Stores of every kind, for what `pipeline.ports.Store` promises of all of them.

Another kind of store runs through all of it by one more entry of KINDS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from postgres import Postgres

from pipeline.checkpoint import SqlStore
from pipeline.model import Counts, DeadLetter, Reading, Result
from pipeline.ports import OpenRun, Store

LEASE = 60.0
START = 1_795_534_200.0  # 2026-11-24T15:30:00Z

READING = Reading(
    streams=("projects/p/streams/0", "projects/p/streams/1"),
    schema=b"\x00\xff arrow",
    query_started=1_795_534_100,
    rows=1_000,
    expires=1_795_555_700,
    bytes_processed=9_000,
    bytes_billed=10_000,
    slot_ms=70,
    cache_hit=True,
    estimated_bytes=8_000,
    details={"job": "retl-1", "table": "p.d.t"},
    columns=("userId", "name"),
)
COUNTS = {"customerio": Counts(read=9, delivered=7, dead_lettered=2, requests=3, bytes_sent=99)}


class Clock:
    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> float:
        return self.time


class Stores:
    """One state, opened by as many holders as a test wants."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind, self.url = kind, url
        self.clock = Clock()
        self._opened: list[SqlStore] = []

    def open(
        self, holder: str = "elsewhere:1:a", token: Callable[[], str] | None = None
    ) -> SqlStore:
        more = {} if token is None else {"token": token}
        store = SqlStore(self.url, holder=holder, now=self.clock, lease_seconds=LEASE, **more)
        self._opened.append(store)
        return store

    def close(self) -> None:
        for store in self._opened:
            store.close()


def _sqlite(_request: pytest.FixtureRequest, folder: Path) -> str:
    return f"sqlite:///{folder}/made/by/the/store/state.db"


def _postgres(request: pytest.FixtureRequest, _folder: Path) -> str:
    server: Postgres = request.getfixturevalue("postgres")
    return server.fresh()


KINDS: dict[str, Callable[[pytest.FixtureRequest, Path], str]] = {
    "sqlite": _sqlite,
    "postgres": _postgres,
}


@pytest.fixture(params=KINDS)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    stores = Stores(request.param, KINDS[request.param](request, tmp_path))
    yield stores
    stores.close()


@pytest.fixture
def store(stores: Stores) -> SqlStore:
    return stores.open()


def letter(row: int, *, stream: int = 0, reason: str = "missing_id") -> DeadLetter:
    return DeadLetter(
        stream=stream, row=row, reason=reason, message="no userId", payload=b'{"n":%d}' % row
    )


def complete(store: Store, sync: str = "users", *, query_started: int = 500) -> OpenRun:
    run = store.begin(sync, "f")
    store.attach(run, replace(READING, query_started=query_started))
    store.finish(run, Result.COMPLETE, COUNTS)
    return run
