import importlib
import os
import subprocess
import sys

import pytest
from typer.main import get_group

from pipeline.cli.app import VERBS, run

HEAVY = ("pyarrow", "numpy", "pydantic", "sqlalchemy", "google", "grpc", "aiohttp", "duckdb")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_shows_every_verb(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pipeline.cli.app import run; run(['--help'])\n"
        f"sys.exit(' '.join(name for name in {HEAVY} if name in sys.modules) or 0)"
    )
    environment = os.environ | {"COVERAGE_PROCESS_START": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_where_the_table_says_and_has_help(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module, _ = VERBS[verb]
    group = get_group(importlib.import_module(f"pipeline.cli.{module}").app)
    assert verb in group.commands
    assert run([verb, "--help"]) == 0
    assert f"retl {verb}" in capsys.readouterr().out


def test_simple_verbs_say_the_same_in_both_places() -> None:
    for verb in ("demo", "init", "validate", "list", "schema", "preview", "run", "runs"):
        module, line = VERBS[verb]
        group = get_group(importlib.import_module(f"pipeline.cli.{module}").app)
        assert (group.commands[verb].help or "").splitlines()[0] == line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rum"], "rum"),
        (["run", "--nope"], "--nope"),
        (["runs", "--limit", "0"], "--limit"),
        (["runs", "--output", "xml"], "xml"),
        (["preview"], "SYNC"),
        (["state", "set", "users"], "TIME"),
        (["run", "--metrics-port", "70000", "x"], "--metrics-port"),
    ],
)
def test_wrong_usage_is_64(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 64
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("retl ")
