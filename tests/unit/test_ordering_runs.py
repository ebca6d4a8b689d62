"""`ordering: per_user` from the configuration to the destination, stopped and gone on with."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from pathlib import Path

import pyarrow as pa
import pytest
from memory_run import SCHEMA, MemoryFrame, MemorySource, MemoryStore, run
from ordering_run import Api, check_order, ordered

from pipeline import load_config, run_sync
from pipeline.config import Config
from pipeline.errors import SourceError
from pipeline.model import Limits, Reading, Result, Span
from pipeline.ports import Frame
from pipeline.send.ordered import Ordered
from pipeline.send.part_files import PartFiles
from pipeline.send.sender import Sender
from pipeline.source.streams import stream_count
from pipeline.wiring.plan import plan_sync
from pipeline.wiring.routes import open_route
from pipeline.wiring.sources import open_source, streams_of
from pipeline.wiring.spooling import make_spool

LIMITS = Limits(payload_bytes=1_000, batch_bytes=5_000, batch_rows=7)
CONFIG = """
version: 1
sources:
  warehouse: {type: bigquery, project: p, endpoint: "http://127.0.0.1:9"}
  lake: {type: file, path: rows}
destinations:
  cio: {type: customerio, api_key: key}
  out: {type: file, path: out.ndjson}
  parts: {type: file, path: parts, format: parquet}
syncs:
  plain: {source: warehouse, call: identify, destinations: [cio], query: SELECT 1 AS userId}
  kept:
    source: warehouse
    call: identify
    destinations: [cio, parts]
    query: SELECT 1 AS userId
    ordering: per_user
  files: {source: lake, call: identify, destinations: [out], ordering: per_user}
send: {concurrency: 4}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "retl.yml"
    path.write_text(CONFIG, encoding="utf-8")
    return load_config(path, {})


class Users(MemorySource):
    """One stream of rows about these users. Ends with an error before frame `breaks_at`."""

    def __init__(self, users: list[int], breaks_at: int | None = None) -> None:
        super().__init__([len(users)])
        self.users, self.breaks_at = users, breaks_at

    async def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[Frame, None]:
        self.read_from.append((stream, first))
        for row in range(first, len(self.users), 5):
            if self.breaks_at is not None and row >= self.breaks_at:
                await asyncio.sleep(0.02)  # what was read before is on its way
                raise SourceError("The read broke.")
            rows = range(row, min(row + 5, len(self.users)))
            columns = [pa.array([str(self.users[r]) for r in rows]), pa.array(rows, pa.int64())]
            batch = pa.record_batch(columns, schema=SCHEMA)
            yield MemoryFrame(Span(stream=stream, first=row, rows=len(rows)), batch)


def slow_api(seed: int) -> Api:
    dice = random.Random(seed)
    api = Api(lambda *_: (200, dice.random() / 100), LIMITS)
    api.pattern = rb'"x":(\d+)'
    return api


async def test_a_run_keeps_each_user_in_order() -> None:
    users = [random.Random(1).randrange(1, 9) ** 2 // 9 for _ in range(200)]
    api = slow_api(1)
    report = await run(
        Users(users),
        MemoryStore(),
        {"api": ordered(api)},
        users=True,  # type: ignore[dict-item]
    )
    assert (report.result, report.destinations["api"].delivered) == (Result.COMPLETE, 200)
    check_order(api.posts, users)


async def test_a_run_that_goes_on_repeats_and_never_skips() -> None:
    dice = random.Random(2)
    users = [dice.randrange(1, 12) ** 2 // 9 for _ in range(300)]
    store, accepted = MemoryStore(), []
    for breaks_at in (150, 220, None):
        api = slow_api(breaks_at or 3)
        began = store.checkpoints.get(("api", 0), 0)
        source = Users(users, breaks_at)
        report = await run(
            source,
            store,
            {"api": ordered(api)},
            users=True,  # type: ignore[dict-item]
        )
        assert report.result is (Result.COMPLETE if breaks_at is None else Result.FAILED)
        assert source.read_from == [(0, began)]
        accepted.append([row for post in api.posts if post.status == 200 for row in post.rows])
        assert min(accepted[-1], default=began) >= began
        # Each user begins with his first row that is not covered, and goes on without a gap.
        for user in set(users):
            his = [row for row in range(began, len(users)) if users[row] == user]
            sent = [row for row in accepted[-1] if users[row] == user]
            assert sent == his[: len(sent)]
    assert set().union(*accepted) == set(range(300))


async def test_it_is_wired_where_it_is_asked_for(config: Config) -> None:
    found = {}
    for sync, target in (("plain", "cio"), ("kept", "cio"), ("kept", "parts")):
        async with open_route(config, sync, target, None, lambda _event: None) as route:
            found[sync, target] = route.deliverer
    assert isinstance(found["plain", "cio"], Sender)
    assert isinstance(found["kept", "cio"], Ordered)
    parts = found["kept", "parts"]
    assert isinstance(parts, PartFiles)
    assert parts._room._value == 1


async def test_one_stream_is_read(config: Config) -> None:
    assert [streams_of(config, config.syncs[name]) for name in ("plain", "kept")] == [4, 1]
    for name, streams in (("plain", 4), ("kept", 1)):
        async with open_source(config, name, config.syncs[name]) as source:
            spool = make_spool(config, name, source, lambda _event: None)
            assert spool is not None
            assert source._streams == stream_count(streams)  # type: ignore[attr-defined]
            assert spool._streams == streams


async def test_files_are_read_one_after_another_in_the_order_of_their_names(
    config: Config, tmp_path: Path
) -> None:
    (tmp_path / "rows").mkdir()
    for number in range(3):
        rows = range(number * 50, number * 50 + 50)
        table = pa.table({"userId": [f"u{row % 3}" for row in rows], "n": rows})
        with (
            pa.OSFile(str(tmp_path / "rows" / f"{number}.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table, max_chunksize=9)
    report = await run_sync(config, "files")
    assert report.error is None
    lines = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    for user in ("u0", "u1", "u2"):
        his = [line["traits"]["n"] for line in lines if line["userId"] == user]
        assert his == sorted(his)
        assert len(his) == 50


@pytest.mark.parametrize(
    ("query", "warned"),
    [("SELECT 1 AS userId", True), ("SELECT 1 AS userId ORDER BY userId", False)],
)
async def test_a_plan_says_what_order_asks_for(
    config: Config, monkeypatch: pytest.MonkeyPatch, query: str, *, warned: bool
) -> None:
    from pipeline.source.bigquery import BigQuery

    async def dry_run(_self: BigQuery, _window: object) -> object:
        from pipeline.ports import DryRun

        return DryRun(bytes_processed=0, statement_type="SELECT")

    monkeypatch.setattr(BigQuery, "dry_run", dry_run)
    sync = config.syncs["kept"].model_copy(update={"query": query})
    config = config.model_copy(update={"syncs": {**config.syncs, "kept": sync}})
    notes = " ".join((await plan_sync(config, "kept", sample=0)).notes)
    assert "One stream is read" in notes
    assert ("without ORDER BY" in notes) is warned
    plain = await plan_sync(config, "plain", sample=0)
    assert "One stream is read" not in " ".join(plain.notes)
