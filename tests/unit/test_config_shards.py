"""Which shard a process is, by the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.config import Config, load_config
from pipeline.errors import ConfigError, Fault
from pipeline.ports import WHOLE, Shard

BASE = """\
version: 1
sources: {disk: {type: file, path: x}}
destinations: {out: {type: file, path: y}}
syncs: {users: {source: disk, call: identify, destinations: [out]}}
"""
POSTGRES = {"RETL_STATE": "postgresql://retl@db/retl"}
THREE = POSTGRES | {"RETL_SHARDS": "3", "JOB_COMPLETION_INDEX": "1", "RETL_JOB": "6f1c-uid"}


def load(folder: Path, env: Mapping[str, str], text: str = BASE) -> Config:
    (folder / "retl.yml").write_text(text)
    return load_config(folder / "retl.yml", env)


def faults(folder: Path, env: Mapping[str, str], text: str = BASE) -> tuple[Fault, ...]:
    with pytest.raises(ConfigError) as caught:
        load(folder, env, text)
    return caught.value.faults


def test_an_index_of_a_job(tmp_path: Path) -> None:
    assert load(tmp_path, THREE).shard == Shard(index=1, of=3, job="6f1c-uid")
    spaced = THREE | {"RETL_SHARDS": " 3 ", "JOB_COMPLETION_INDEX": "0 "}
    assert load(tmp_path, spaced).shard.index == 0


@pytest.mark.parametrize("shards", ["", "1", " ", "01"])
def test_a_process_alone(tmp_path: Path, shards: str) -> None:
    """Whatever the other two say: an Indexed Job sets its index always."""
    env = {"RETL_SHARDS": shards, "JOB_COMPLETION_INDEX": "7", "RETL_JOB": "?"}
    assert load(tmp_path, env).shard == WHOLE
    assert load(tmp_path, {}).shard == WHOLE


@pytest.mark.parametrize("shards", ["0", "-1", "1001", "three", "2.0", "٣", "1e2", "9" * 40])
def test_no_number_of_shards(tmp_path: Path, shards: str) -> None:
    (fault,) = faults(tmp_path, THREE | {"RETL_SHARDS": shards})
    assert (fault.where, fault.what) == ("RETL_SHARDS", "This is no number of shards.")
    assert "1 to 1,000" in fault.remedy


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ("", "which of them this process is, is not known. Kubernetes sets it in a Job with"),
        ("3", "There is no shard 3 of 3: they count from 0 to 2. Let RETL_SHARDS be the Job's"),
        ("-1", "This is no number of a shard. Set 0 to 2."),
        ("one", "This is no number of a shard."),
    ],
)
def test_no_index(tmp_path: Path, index: str, says: str) -> None:
    (fault,) = faults(tmp_path, THREE | {"JOB_COMPLETION_INDEX": index})
    assert fault.where == "JOB_COMPLETION_INDEX"
    assert says in f"{fault.what} {fault.remedy}"


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ("", "`batch.kubernetes.io/controller-uid`, by the downward API"),
        ("a b", "This can't name a Job."),
        ("x" * 129, "This can't name a Job."),
    ],
)
def test_no_job(tmp_path: Path, job: str, says: str) -> None:
    (fault,) = faults(tmp_path, THREE | {"RETL_JOB": job})
    assert fault.where == "RETL_JOB"
    assert says in f"{fault.what} {fault.remedy}"


@pytest.mark.parametrize("state", [None, "sqlite:///x.db"])
def test_a_state_in_a_file_is_not_shared(tmp_path: Path, state: str | None) -> None:
    env = {name: text for name, text in THREE.items() if name != "RETL_STATE"}
    text = BASE if state is None else f"{BASE}state: {state}\n"
    (fault,) = faults(tmp_path, env, text)
    assert fault.where == "RETL_SHARDS"
    assert str(fault).endswith("Let `state` (RETL_STATE) name a Postgres, or unset it.")
    assert load(tmp_path, env, f"{BASE}state: postgresql://retl@db/retl\n").shard.of == 3


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path, {"RETL_SHARDS": "3"}, f"{BASE}drain: never\n")
    assert {"RETL_SHARDS", "JOB_COMPLETION_INDEX", "RETL_JOB"} < {fault.where for fault in found}
