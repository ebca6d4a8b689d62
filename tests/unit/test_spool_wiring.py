"""Where a sync's spool is, and what the estimate is made with."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Config, load_config
from pipeline.errors import ConfigError
from pipeline.wiring.sources import open_source
from pipeline.wiring.spooling import make_pace, make_spool

CONFIG = """
version: 1
sources:
  warehouse: {type: bigquery, project: p, endpoint: "http://127.0.0.1:9"}
  lake: {type: file, path: users.parquet}
destinations:
  cio: {type: customerio, api_key: key}
  out: {type: file, path: out.ndjson}
syncs:
  users: {source: warehouse, call: identify, destinations: [cio, out], query: SELECT 1 AS userId}
  rows: {source: warehouse, call: identify, destinations: [out], table: app.users}
  files: {source: lake, call: identify, destinations: [out]}
"""


def config(folder: Path, text: str = "", **env: str) -> Config:
    path = folder / "retl.yml"
    path.write_text(CONFIG + text, encoding="utf-8")
    return load_config(path, env)


def test_it_is_off_without_a_directory(tmp_path: Path) -> None:
    spool = config(tmp_path).spool
    assert (spool.dir, spool.max_bytes, spool.when) == (None, 20 * 10**9, "auto")


@pytest.mark.parametrize(("name", "wrapped"), [("users", True), ("rows", True), ("files", False)])
async def test_what_never_expires_needs_none(tmp_path: Path, name: str, *, wrapped: bool) -> None:
    made = config(tmp_path, RETL_SPOOL_DIR="spool")
    async with open_source(made, name, made.syncs[name]) as source:
        spool = make_spool(made, name, source, lambda _event: None)
    assert (spool is not None) is wrapped


async def test_each_sync_of_each_state_has_its_own_folder(tmp_path: Path) -> None:
    found = []
    for name, env in [
        ("users", {"RETL_SPOOL_DIR": "spool"}),
        ("users", {"RETL_SPOOL_DIR": "spool", "RETL_STATE": "sqlite:///other.db"}),
        ("rows", {"RETL_SPOOL_DIR": str(tmp_path / "spool"), "RETL_SPOOL__WHEN": "always"}),
    ]:
        made = config(tmp_path, **env)
        async with open_source(made, name, made.syncs[name]) as source:
            spool = make_spool(made, name, source, lambda _event: None)
        assert spool is not None
        assert spool._disk is not None
        assert spool._disk.always is ("RETL_SPOOL__WHEN" in env)
        found.append(spool._disk.parent)
    assert {path.parent for path in found} == {tmp_path / "spool"}
    assert [path.name.rpartition("-")[0] for path in found] == ["users", "users", "rows"]
    assert len(set(found)) == 3


def test_the_pace_is_the_configured_or_the_destinations_own(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert make_pace(made, "cio").requests_per_second == 1_000
    assert make_pace(made, "cio").batch_bytes <= 500_000
    assert make_pace(made, "out").requests_per_second is None
    slow = config(tmp_path, RETL_RATE_LIMIT="5", RETL_ROWS_RATE_LIMIT="70")
    assert make_pace(slow, "cio").requests_per_second == 5
    assert make_pace(slow, "cio").rows_per_second == 70


@pytest.mark.parametrize("text", ["spool: {dir: gs://bucket/x}", "spool: {dir: ' '}"])
def test_only_a_directory_of_this_machine_will_do(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"spool\.dir, line 13: This is no directory of this machine"
    ):
        config(tmp_path, text)
