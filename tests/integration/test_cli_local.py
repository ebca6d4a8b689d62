"""`retl local`: ready means ready, a signal ends it with 0, and wrong options are said."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.app import run

ROOT = Path(__file__).parents[2]
PATIENCE = 60


def start(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "local", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def ready(process: "subprocess.Popen[str]") -> dict[str, str]:
    assert process.stdout is not None
    told: dict[str, str] = json.loads(process.stdout.readline())
    return told


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_bigquery_is_ready_when_it_says_so_and_ends_on_a_signal(number: int) -> None:
    process = start("bigquery", "--synthetic", "users=1000")
    told = ready(process)
    assert set(told) == {"rest", "storage"}
    host, _, port = told["storage"].rpartition(":")
    socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.slow
def test_customerio_takes_its_options(tmp_path: Path) -> None:
    record = tmp_path / "arrived.ndjson"
    plan = tmp_path / "plan.yml"
    plan.write_text("- {on: batch, do: {status: 503}}\n")
    process = start(
        *("customerio", "--key", "k", "--record", str(record), "--unique"),
        *("--oversize", "413", "--rate-limit", "1000", "--faults", str(plan)),
    )
    url = ready(process)["url"]
    with urllib.request.urlopen(f"{url}/_local/stats", timeout=PATIENCE) as answer:
        assert json.load(answer)["unique_message_ids"] == 0
    process.terminate()
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert record.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bigquery", "customerio"])
def test_a_server_of_the_demo_ends_when_its_parent_is_gone(name: str) -> None:
    process = start(name, "--end-with-stdin", stdin=subprocess.PIPE, start_new_session=True)
    ready(process)
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bigquery", "customerio"])
def test_a_port_that_is_taken(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start(name, "--port", str(taken.getsockname()[1]))
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 78, err
    assert out == ""
    assert "Choose " in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["bigquery", "--synthetic", "users"], 64, "NAME=ROWS"),
        (["bigquery", "--synthetic", "nothing=5"], 78, "nothing"),
        (["customerio", "--faults", "/no/such/plan.yml"], 64, "plan.yml"),
        (["customerio", "--mode", "lazy"], 64, "lazy"),
        (["customerio", "--latency", "-1"], 64, "--latency"),
        (["snowflake"], 64, "snowflake"),
    ],
)
def test_wrong_options(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["local", *arguments]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_a_bad_fault_plan_is_a_configuration_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.yml"
    plan.write_text("- {on: batch, do: {status: many}}\n")
    assert run(["local", "customerio", "--faults", str(plan)]) == 78
    assert "status" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["local", "bigquery"], ["demo"]])
def test_a_missing_extra_is_said_with_its_remedy(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert run(command) == 78
    assert "pip install 'bigquery-reverse-etl[local]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
