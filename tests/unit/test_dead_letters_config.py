"""The section `dead_letters` of retl.yml."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.model import Kept

CONFIG = """
version: 1
sources: {{lake: {{type: file, path: x.parquet}}}}
destinations: {{out: {{type: file, path: out.ndjson}}}}
syncs: {{users: {{source: lake, call: identify, destinations: [out]}}}}
{more}
"""
ONE, TWO = Fernet.generate_key().decode(), Fernet.generate_key().decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "retl.yml"


def test_payloads_are_kept_in_full_and_plain_unless_said_otherwise(file: Path) -> None:
    file.write_text(CONFIG.format(more=""), encoding="utf-8")
    settings = load_config(file, {}).dead_letters
    assert (settings.payload, settings.keys) == (Kept.FULL, [])


def test_keys_come_from_secrets_and_are_not_shown(file: Path) -> None:
    more = "dead_letters: {payload: ids, key: '${KEYS}'}"
    file.write_text(CONFIG.format(more=more), encoding="utf-8")
    config = load_config(file, {"KEYS": f" {ONE} ,{TWO}\n"})
    assert (config.dead_letters.payload, config.dead_letters.keys) == (Kept.IDS, [ONE, TWO])
    assert ONE not in repr(config)
    assert ONE not in config.model_dump_json()


def test_variables_win_over_the_file(file: Path) -> None:
    file.write_text(CONFIG.format(more="dead_letters: {payload: full}"), encoding="utf-8")
    env = {"RETL_DEAD_LETTERS__PAYLOAD": "none", "RETL_DEAD_LETTERS__KEY": ONE}
    settings = load_config(file, env).dead_letters
    assert (settings.payload, settings.keys) == (Kept.NONE, [ONE])


@pytest.mark.parametrize(
    "key", ["hunter2", ONE[:-4], f"{ONE},", f"{ONE};{TWO}", "*" * 44, "é" * 44]
)
def test_what_is_no_fernet_key_is_refused_without_showing_it(file: Path, key: str) -> None:
    file.write_text(CONFIG.format(more="dead_letters: {key: '${KEY}'}"), encoding="utf-8")
    with pytest.raises(ConfigError, match="not a Fernet key") as caught:
        load_config(file, {"KEY": key})
    assert "dead_letters.key" in str(caught.value)
    assert key not in str(caught.value)


def test_another_way_of_keeping_is_refused(file: Path) -> None:
    file.write_text(CONFIG.format(more="dead_letters: {payload: some}"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"dead_letters\.payload"):
        load_config(file, {})
