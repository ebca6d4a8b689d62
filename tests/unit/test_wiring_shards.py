"""What a process that is one of several shards is wired to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Config, load_config
from pipeline.events import Event, Warned
from pipeline.send.sender import Sender
from pipeline.wiring.routes import open_route
from pipeline.wiring.sources import open_source
from pipeline.wiring.spooling import make_spool

CONFIG = """
version: 1
sources: {warehouse: {type: bigquery, project: p, endpoint: "http://127.0.0.1:9"}}
destinations: {cio: {type: customerio, api_key: key}}
syncs:
  users: {source: warehouse, call: identify, destinations: [cio], query: SELECT 1 AS userId}
  rows: {source: warehouse, call: identify, destinations: [cio], table: app.users}
  turns:
    {source: warehouse, call: identify, destinations: [cio], ordering: per_user, query: SELECT 1}
state: postgresql://retl@db/retl
"""


def config(folder: Path, *, shards: int = 4, **env: str) -> Config:
    path = folder / "retl.yml"
    path.write_text(CONFIG, encoding="utf-8")
    shard = {"RETL_SHARDS": str(shards), "JOB_COMPLETION_INDEX": "1", "RETL_JOB": "j"}
    return load_config(path, shard | env)


@pytest.mark.parametrize(
    ("name", "shards", "streams"),
    [
        ("users", 4, (64, 32)),
        ("rows", 4, (64, 32)),
        ("turns", 4, (1, 0)),  # an order is kept by one stream, whoever has it
        ("users", 1, (16, 0)),
    ],
)
async def test_streams_for_all_shards_are_asked_for(
    tmp_path: Path, name: str, shards: int, streams: tuple[int, int]
) -> None:
    made = config(tmp_path, shards=shards)
    async with open_source(made, name, made.syncs[name]) as source:
        assert source._streams == streams  # type: ignore[attr-defined]


async def test_the_rate_limit_is_shared(tmp_path: Path) -> None:
    made = config(tmp_path, RETL_RATE_LIMIT="10", RETL_ROWS_RATE_LIMIT="1000")
    async with open_route(made, "users", "cio", None, lambda _event: None) as route:
        sender = route.deliverer
        assert isinstance(sender, Sender)
        limiter = sender._limiter
        assert limiter.most_rows == 125  # of 250 rows and 2 requests in a second
        route.share(3, 4)
        now = sender._clock()
        limiter.take(now, 1)
        assert limiter.wait(now) == pytest.approx(0.5, abs=0.01)  # 3, 3, 2 and 2 of the 10


async def test_rows_of_a_shard_are_not_spooled_and_it_says_so(tmp_path: Path) -> None:
    heard: list[Event] = []
    for env in ({"RETL_SPOOL_DIR": "spool"}, {}):
        made = config(tmp_path, **env)
        async with open_source(made, "users", made.syncs["users"]) as source:
            assert make_spool(made, "users", source, heard.append) is None
    (told,) = heard
    assert isinstance(told, Warned)
    assert "`spool.dir` is not used" in told.text
