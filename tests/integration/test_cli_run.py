"""The verbs that run and what they leave behind; where signals count, in a process of its own."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli.app import run

RETL = [sys.executable, "-m", "pipeline"]
PATIENCE = 60
ROWS = 20_000

CONFIG = """
version: 1
sources:
  lake: {{type: file, path: users.parquet}}
  mixed: {{type: file, path: mixed.parquet}}
  nothing: {{type: file, path: nothing.parquet}}
destinations:
  cio: {{type: customerio, api_key: {key}, endpoint: "{url}/v1"}}
  down: {{type: customerio, api_key: key, endpoint: "http://127.0.0.1:9/v1"}}
  out: {{type: file, path: out.ndjson}}
syncs:
  users: {{source: lake, call: identify, destinations: [cio], tags: [big]}}
  mixed: {{source: mixed, call: identify, destinations: [cio, out]}}
  strict: {{source: mixed, call: identify, destinations: [out], max_rejected: 0}}
  nothing: {{source: nothing, call: identify, destinations: [out]}}
  wrong_call: {{source: nothing, call: track, destinations: [out]}}
  down: {{source: mixed, call: identify, destinations: [down]}}
send: {{concurrency: 4, retry_deadline: 0.1}}
"""


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Project:
    folder: Path

    def retl(self, *arguments: str, **env: str) -> Done:
        """In this process, because starting one takes a second."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, environment(**env), clear=True),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = run(arguments)
        return Done(code, out.getvalue(), err.getvalue())

    def start(self, *arguments: str, **env: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*RETL, *arguments],
            cwd=self.folder,
            env=environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def told(self, *arguments: str) -> Any:
        done = self.retl(*arguments, "--output", "json")
        return json.loads(done.stdout)


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RETL_")}
    root = Path(__file__).parents[2]
    return clean | {"PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"} | more


@contextlib.contextmanager
def customerio(*options: str) -> Iterator[str]:
    process = subprocess.Popen(
        [*RETL, "local", "customerio", *options],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0
        process.stdout.close()


def stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/_local/stats", timeout=PATIENCE) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def project(folder: Path, url: str, key: str = "key") -> Project:
    numbers = range(ROWS)
    names = [f"user{number}@example.com" for number in numbers]
    pq.write_table(pa.table({"userId": list(numbers), "email": names}), folder / "users.parquet")
    mixed = pa.table(
        {"userId": ["a", None, "c"], "note": ["x\x1b[31m", "no id", "z" * 40_000]},
    )
    pq.write_table(mixed, folder / "mixed.parquet")
    pq.write_table(mixed.slice(0, 0), folder / "nothing.parquet")
    (folder / "retl.yml").write_text(CONFIG.format(url=url, key=key))
    return Project(folder)


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with customerio("--key", "key") as url:
        yield url


@pytest.fixture
def here(tmp_path: Path, service: str) -> Project:
    return project(tmp_path, service)


@pytest.mark.slow
def test_a_run_and_all_that_can_be_seen_of_it_afterwards(here: Project, service: str) -> None:
    before = stats(service)["accepted"]
    process = here.start("run", "users", "mixed")
    out, err = process.communicate(timeout=PATIENCE)
    done = Done(process.returncode, out, err)
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stdout
    assert "20,000" in done.stdout
    assert "run started" in done.stderr
    assert "run finished" in done.stderr
    assert stats(service)["accepted"] == before + ROWS + 1

    runs = here.told("runs")
    assert [one["sync"] for one in runs] == ["mixed", "users"]
    assert runs[1]["destinations"]["cio"]["delivered"] == ROWS
    assert [one["sync"] for one in here.told("runs", "users", "--limit", "1")] == ["users"]
    assert runs[0]["run"] in here.retl("runs").stdout

    letters = here.told("dead-letters", "list", "mixed")
    assert {(one["destination"], one["reason"]) for one in letters} >= {
        ("cio", "missing_id"),
        ("cio", "payload_too_large"),
        ("out", "missing_id"),
    }
    assert all("payload" not in one for one in letters)
    listed = here.retl("dead-letters", "list").stdout
    assert "missing_id" in listed
    assert "no id" not in listed
    assert here.told("dead-letters", "list", "--run", runs[1]["run"]) == []
    number = next(str(one["id"]) for one in letters if one["reason"] == "missing_id")
    shown = here.told("dead-letters", "show", number)
    assert shown["payload"]["traits"]["note"] == "no id"
    assert "no id" in here.retl("dead-letters", "show", number).stdout
    assert here.retl("dead-letters", "show", "999999").returncode == 64

    state = here.told("state", "show", "users")
    assert state["completed_runs"] == 1
    assert state["last_result"] == "complete"
    assert "completed runs  1" in here.retl("state", "show", "users").stdout


@pytest.mark.slow
def test_state_is_moved_only_on_purpose(here: Project) -> None:
    assert here.told("state", "show", "users")["last_sync_time"] == 0
    assert here.retl("state", "set", "users", "2025-11-24T16:00:00Z").returncode == 0
    assert here.told("state", "show", "users")["last_sync_time"] == 1764000000
    refused = here.retl("state", "reset", "users")
    assert refused.returncode == 64
    assert "--yes" in refused.stderr
    assert here.told("state", "show", "users")["last_sync_time"] == 1764000000
    assert here.retl("state", "reset", "users", "--yes").returncode == 0
    assert here.told("state", "show", "users")["last_sync_time"] == 0
    assert here.retl("state", "show", "user").returncode == 64


@pytest.mark.slow
def test_preview_shows_the_exact_json_and_what_is_invalid(here: Project, service: str) -> None:
    before = stats(service)["requests"]
    told = here.told("preview", "mixed", "--rows", "2")
    assert [one["invalid"] and one["invalid"]["reason"] for one in told["rows"]] == [
        None,
        "missing_id",
    ]
    assert told["rows"][0]["payload"]["userId"] == "a"
    assert [one["name"] for one in told["columns"]] == ["userId", "note"]
    done = here.retl("preview", "mixed")
    assert '"userId":"a"' in done.stdout
    assert "missing_id" in done.stdout
    assert "bytes more" in done.stdout
    assert "\x1b" not in done.stdout
    assert here.retl("preview", "nothing").returncode == 0
    assert stats(service)["requests"] == before
    assert here.told("runs") == []


@pytest.mark.slow
def test_a_dry_run_sends_nothing_and_keeps_no_state(here: Project, service: str) -> None:
    before = stats(service)["requests"]
    done = here.retl("run", "users", "--dry-run", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == "complete"
    lines = (here.folder / ".retl/dry-run/users.ndjson").read_bytes().splitlines()
    assert len(lines) == ROWS
    assert json.loads(lines[0])["type"] == "identify"
    assert stats(service)["requests"] == before
    assert here.told("runs") == []


@pytest.mark.slow
def test_each_sync_ends_by_itself_and_the_worst_code_counts(here: Project) -> None:
    done = here.retl("run", "nothing", "strict", "wrong_call", "down", "--output", "json")
    ended = {one["sync"]: one for one in map(json.loads, done.stdout.splitlines())}
    codes = {name: one["exit_code"] for name, one in ended.items()}
    assert codes == {"strict": 65, "nothing": 0, "wrong_call": 78, "down": 75}
    assert done.returncode == 78
    assert "retl: sync strict: " in done.stderr
    assert here.retl("run", "strict", "down").returncode == 65
    assert here.retl("run", "down").returncode == 75


@pytest.mark.slow
def test_a_wrong_key_halts_with_77_and_no_dead_letters(tmp_path: Path, service: str) -> None:
    here = project(tmp_path, service, key="other")
    done = here.retl("run", "users")
    assert done.returncode == 77, done.stderr
    assert here.told("dead-letters", "list") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"RETL_STATE": "sqlite:////dev/null/state.db"}, 78, "/dev/null"),
        ({"RETL_CONCURRENCYY": "3"}, 78, "RETL_CONCURRENCY"),
        ({"RETL_CONFIG": "nowhere.yml"}, 78, "nowhere.yml"),
    ],
)
def test_bad_input_from_the_environment(
    here: Project, change: dict[str, str], code: int, said: str
) -> None:
    done = here.retl("run", "nothing", **change)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_metrics_port_that_is_taken(here: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = here.retl("run", "nothing", RETL_METRICS_PORT=port, RETL_METRICS__HOST="127.0.0.1")
    assert done.returncode == 78, done.stderr
    assert port in done.stderr


@pytest.mark.slow
def test_logs_are_json_when_asked_for(here: Project) -> None:
    done = here.retl("run", "mixed", RETL_LOG_FORMAT="json")
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert events.count("run started") == 2
    quiet = here.retl("run", "mixed", RETL_LOG_LEVEL="error")
    assert quiet.stderr == ""


@pytest.mark.slow
def test_metrics_are_served_while_running(tmp_path: Path) -> None:
    with customerio("--latency", "0.3") as url:
        here = project(tmp_path, url)
        process = here.start("run", "users", "--metrics-port", "0", RETL_CONCURRENCY="1")
        assert process.stderr is not None
        address = process.stderr.readline().split()[-1].replace("0.0.0.0", "127.0.0.1")
        until(lambda: stats(url)["requests"] > 0)
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            text = answer.read().decode()
        assert 'retl_rows_read_total{destination="cio",sync="users"}' in text
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_next_run_goes_on(tmp_path: Path, number: int) -> None:
    with customerio("--latency", "0.5", "--unique") as url:
        here = project(tmp_path, url)
        slowly = {"RETL_CONCURRENCY": "1", "RETL_BUFFER_BYTES": "1MB"}
        process = here.start("run", "users", "nothing", **slowly)
        until(lambda: stats(url)["in_flight"] > 0)
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 75, said
        assert "Stopping" in said
        (last,) = here.told("runs")
        assert last["result"] == "interrupted"
        arrived = stats(url)["accepted"]
        assert 0 < arrived < ROWS
        assert last["destinations"]["cio"]["delivered"] == arrived
        assert here.retl("run", "users").returncode == 0
        after = stats(url)
        assert (after["accepted"], after["duplicates"]) == (ROWS, 0)


HANGS = "- {on: batch, times: always, do: {hang: true}}\n"


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yml"
    plan.write_text(HANGS)
    with customerio("--faults", str(plan)) as url:
        here = project(tmp_path, url)
        process = here.start("run", "users", RETL_DRAIN="10m", RETL_TIMEOUT="10m")
        until(lambda: stats(url)["in_flight"] > 0)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        until(lambda: "Stopping" in process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 75


@pytest.mark.parametrize(("answer", "code", "start"), [(False, 75, 1764000000), (True, 0, 0)])
def test_reset_asks_on_a_terminal(
    here: Project, monkeypatch: pytest.MonkeyPatch, answer: object, code: int, start: int
) -> None:
    here.retl("state", "set", "users", "1764000000")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_said, **_options: answer)
    assert here.retl("state", "reset", "users").returncode == code
    assert here.told("state", "show", "users")["last_sync_time"] == start
