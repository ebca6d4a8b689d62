"""What the verbs show of a run that several processes share, and refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from local_services import Done, retl
from postgres import Postgres
from stores import READING

from pipeline.checkpoint import SqlStore
from pipeline.model import Counts, Result
from pipeline.ports import OpenRun, Shard

CONFIG = """
version: 1
sources: {lake: {type: file, path: users.parquet}}
destinations: {out: {type: file, path: out.ndjson}}
syncs:
  users: {source: lake, call: identify, destinations: [out]}
"""


class Project:
    """Three shards of a run of `users`: 0 is complete, 1 goes on, 2 is nobody's."""

    def __init__(self, folder: Path, state: str) -> None:
        self.folder, self.state = folder, state
        pq.write_table(pa.table({"userId": ["a", "b"]}), folder / "users.parquet")
        (folder / "retl.yml").write_text(CONFIG)
        self.stores = [SqlStore(state, holder=f"pod-{index}:1:a") for index in range(3)]
        self.runs = [
            store.begin("users", "f", shard=Shard(index=index, of=3, job="job-7"))
            for index, store in enumerate(self.stores)
        ]
        self.stores[0].attach(self.runs[0], replace(READING, streams=("a", "b", "c"), rows=9))
        self.commit(0, 4)
        self.stores[0].finish(self.runs[0], Result.COMPLETE, {})
        self.stores[2].finish(self.runs[2], Result.INTERRUPTED, {})

    def commit(self, index: int, rows: int) -> OpenRun:
        run = self.stores[index].follow(self.runs[index])
        counts = Counts(read=rows, delivered=rows - 1, dead_lettered=1)
        self.stores[index].commit(run, {("out", index): rows}, {"out": counts})
        return run

    def retl(self, *arguments: str, **env: str) -> Done:
        return retl(self.folder / "retl.yml", *arguments, env={"RETL_STATE": self.state} | env)


@pytest.fixture
def here(tmp_path: Path, postgres: Postgres) -> Iterator[Project]:
    project = Project(tmp_path, postgres.fresh())
    yield project
    for store in project.stores:
        store.close()


def test_a_shared_run_that_goes_on(here: Project) -> None:
    here.commit(1, 3)
    (run,) = here.retl("runs", "--json").json
    assert (run["result"], run["job"], run["shards"]) == (None, "job-7", 3)
    assert run["destinations"]["out"]["read"] == 7
    assert "running" in here.retl("runs").out

    shown = here.retl("runs", "show", run["run"], "--json").json
    assert [(x["index"], x["done"], x["running_on"]) for x in shown["shard_states"]] == [
        (0, True, None),
        (1, False, "pod-1:1"),
        (2, False, None),
    ]
    text = here.retl("runs", "show", run["run"]).out
    assert "3 shards of Job job-7" in text
    assert re.search(r"0 +complete +out +4 +3 +1", text)
    assert re.search(r"1 +running on pod-1:1 +out +3 +2 +1", text)
    assert re.search(r"2 +nobody has it +- +0 +0 +0", text)

    state: Any = here.retl("state", "show", "users", "--json").json
    assert [x["done"] for x in state["shards"]] == [True, False, False]
    assert state["running_on"] == "pod-1:1"
    text = here.retl("state", "show", "users").out
    assert "1 running, 1 complete, of 3 shards" in text
    assert re.search(r"shard 1 +running on pod-1:1", text)
    assert "1 running, 1 complete, of 3 shards" in here.retl("state", "show").out


def test_a_shared_run_that_was_left_and_one_that_has_ended(here: Project) -> None:
    run = here.runs[0]
    here.stores[1].finish(here.commit(1, 3), Result.FAILED, {}, "the key is refused")
    assert "unfinished, 1 complete, of 3 shards" in here.retl("state", "show", "users").out
    found = here.retl("runs")
    assert "failed" in found.out
    assert "the key is refused" in found.err

    for index, rows in ((1, 3), (2, 2)):
        shard = Shard(index=index, of=3, job="job-7")
        here.runs[index] = here.stores[index].begin("users", "f", shard=shard)
        here.stores[index].finish(here.commit(index, rows), Result.COMPLETE, {"out": Counts()})

    shown = here.retl("runs", "show", run.id, "--json").json
    assert (shown["result"], shown["shards"], shown["shard_states"]) == ("complete", 3, [])
    assert shown["settled"] == {"out": 9}
    assert here.retl("state", "show", "users", "--json").json["shards"] == []


def test_a_dry_run_is_one_process_s(here: Project) -> None:
    env = {"RETL_SHARDS": "3", "JOB_COMPLETION_INDEX": "0", "RETL_JOB": "j"}
    done = here.retl("run", "users", "--dry-run", **env)
    assert done.code == 78
    assert "A dry run is one process's: each would read everything. Unset RETL_SHARDS." in done.err


def test_an_index_beyond_the_shards(here: Project) -> None:
    env = {"RETL_SHARDS": "3", "JOB_COMPLETION_INDEX": "3", "RETL_JOB": "j"}
    done = here.retl("run", "users", **env)
    assert done.code == 78
    assert "There is no shard 3 of 3" in done.err


def test_a_shard_of_a_run_that_was_given_up(here: Project) -> None:
    here.stores[1].finish(here.runs[1], Result.INTERRUPTED, {})
    assert here.retl("state", "set", "users", "1764000000").code == 0
    env = {"RETL_SHARDS": "3", "JOB_COMPLETION_INDEX": "2", "RETL_JOB": "job-7"}
    done = here.retl("run", "users", "--output", "json", **env)
    assert done.code == 78
    assert "Start a new Job" in done.err
    assert done.json["shard"] == {"index": 2, "of": 3, "job": "job-7"}
