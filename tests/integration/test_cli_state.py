"""`retl state` and `retl runs` as typed: what they print, ask and refuse."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from local_services import Done, retl, services

from pipeline.checkpoint import SqlStore

ROWS = 12
CONFIG = """
version: 1
sources: {lake: {type: file, path: users.parquet}}
destinations:
  out: {type: file, path: out.ndjson}
  more: {type: file, path: more.ndjson}
  down: {type: webhook, url: "http://127.0.0.1:9/"}
syncs:
  users: {source: lake, call: identify, destinations: [out, more]}
  orders: {source: lake, call: identify, destinations: [out]}
  lost: {source: lake, call: identify, destinations: [down]}
send: {retry_deadline: 0.1}
"""


@dataclass
class Project:
    folder: Path

    def __call__(self, *arguments: str, **env: str) -> Done:
        return retl(self.folder / "retl.yml", *arguments, env=env)

    def told(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.code == 0, done.err
        return done.json

    def store(self) -> SqlStore:
        return SqlStore(f"sqlite:///{self.folder}/.retl/state.db", holder="elsewhere:7:a")


@pytest.fixture
def here(tmp_path: Path) -> Project:
    ids = [None if number == 5 else f"u{number}" for number in range(ROWS)]
    pq.write_table(pa.table({"userId": ids}), tmp_path / "users.parquet")
    (tmp_path / "retl.yml").write_text(CONFIG)
    return Project(tmp_path)


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A terminal whose user says yes; what was asked."""
    asked: list[str] = []

    def confirm(text: str, **_options: object) -> bool:
        asked.append(text)
        return True

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", confirm)
    return asked


# ------------------------------------------------------------------------------- runs


def test_a_run_is_shown_in_full(here: Project) -> None:
    assert here("run", "users").code == 0
    (run,) = here.told("runs")
    found = here.told("runs", "show", run["run"])
    assert found | run == found  # all that the list tells, and more
    assert found["window"] == {"start": 0, "sequence": 1}
    assert found["reading"]["rows"] == ROWS
    assert found["settled"] == {"out": ROWS, "more": ROWS}
    assert (found["attempt"], found["unfinished"], found["restarts"]) == (1, False, {})
    assert found["dead_letters"] == [
        {"destination": "more", "reason": "missing_id", "letters": 1},
        {"destination": "out", "reason": "missing_id", "letters": 1},
    ]
    (report,) = found["reports"]
    assert (report["run"], report["exit_code"]) == (run["run"], 0)
    assert report["destinations"]["out"]["delivered"] == ROWS - 1

    shown = here("runs", "show", run["run"]).out
    for text in ("everything, number 1", f"{ROWS}, in 1 streams", "missing_id", "complete"):
        assert text in shown
    assert "attempts on this window" not in shown


def test_a_failed_run_shows_its_error_and_every_process(here: Project) -> None:
    assert [here("run", "lost").code for _ in range(2)] == [75, 75]
    (run,) = here.told("runs", "lost")
    found = here.told("runs", "show", run["run"])
    assert (found["result"], found["unfinished"]) == ("failed", True)
    assert "down" in found["error"]
    assert [report["exit_code"] for report in found["reports"]] == [75, 75]
    shown = here("runs", "show", run["run"]).out
    assert "the next run goes on with it" in shown
    assert found["error"] in shown


def test_earlier_attempts_are_shown(here: Project) -> None:
    with closing(here.store()) as store:
        run = store.begin("users", "f")
        following = store.restart(run, "the session expired")
        store.keep_report(following.id, {"restarts": {"session_expired": 1}, "result": "failed"})
    shown = here("runs", "show", following.id).out
    assert "attempts on this window" in shown
    assert run.id in shown
    assert "1 session_expired" in shown


def test_list_is_what_runs_does(here: Project) -> None:
    here("run", "users", "orders")
    assert here("runs").out == here("runs", "list").out
    assert here("runs", "users").out == here("runs", "list", "users").out
    assert [one["sync"] for one in here.told("runs", "--limit", "1")] == ["orders"]
    assert here("runs", "--help").code == 0


def test_a_run_that_is_not_there(here: Project) -> None:
    done = here("runs", "show", "nobody's")
    assert done.code == 64
    assert "retl runs" in done.err


# ------------------------------------------------------------------------------- state show


def test_all_syncs_at_a_glance(here: Project) -> None:
    here("run", "users", "lost")
    with closing(here.store()) as store:
        store.set_window("gone", 1_764_000_000)
        store.begin("orders", "f")
        found = {one["sync"]: one for one in here.told("state", "show")}
        done = here("state", "show")
    assert [*found] == ["users", "orders", "lost", "gone"]
    assert found["users"]["completed_runs"] == 1
    assert found["users"] == here.told("state", "show", "users")
    assert (found["orders"]["running_on"], found["lost"]["running_on"]) == ("elsewhere:7", None)
    assert found["lost"]["unfinished_run"] == here.told("runs", "lost")[0]["run"]
    for text in ("running on elsewhere:7", "the next run goes on with it", "2025-11-24T16:00:00Z"):
        assert text in done.out
    assert "gone" in done.err
    assert "now             idle" in here("state", "show", "users").out


# ------------------------------------------------------------------------------- state reset


def test_reset_names_the_rows_of_the_last_full_run(here: Project, answered: list[str]) -> None:
    here("run", "users")
    full = here.told("runs")[0]["run"]
    here("run", "users")
    done = here("state", "reset", "users")
    assert done.code == 0
    (question,) = answered
    assert f"about {ROWS} rows, as many as its last full run ({full})" in question
    assert "to out, more" in question
    assert f"about {ROWS} rows" in done.err
    assert here.told("state", "show", "users")["last_sync_time"] == 0


def test_reset_counts_when_no_run_tells(here: Project, answered: list[str]) -> None:
    assert here("state", "reset", "users").code == 0
    assert here("state", "reset", "users", "--no-count").code == 0
    (here.folder / "users.parquet").unlink()
    assert here("state", "reset", "users").code == 0
    counted, not_counted, failed = answered
    assert f"{ROWS} rows" in counted
    assert str(ROWS) not in not_counted
    assert "can't be counted" in failed


QUERIED = """
version: 1
sources:
  warehouse:
    type: bigquery
    project: local
    endpoint: "{rest}"
    storage_endpoint: "http://{storage}"
destinations: {{cio: {{type: customerio, api_key: key}}}}
syncs:
  users:
    source: warehouse
    call: identify
    destinations: [cio]
    query: |
      SELECT id AS userId FROM UNNEST(GENERATE_ARRAY(1, 5000)) AS id
      WHERE id >= {{{{last_sync_time}}}}
"""


@pytest.mark.slow
def test_reset_counts_the_rows_of_a_full_run_by_a_query(
    tmp_path: Path, answered: list[str]
) -> None:
    with services(tmp_path) as found:
        (tmp_path / "retl.yml").write_text(QUERIED.format(rest=found.rest, storage=found.storage))
        here = Project(tmp_path)
        here("state", "set", "users", "4000")
        done = here("state", "reset", "users")
        assert done.code == 0, done.err
    (question,) = answered
    assert "sends everything to cio: 5,000 rows." in question
    assert "Counting the rows" in done.err


def test_reset_changes_nothing_without_a_terminal_to_ask_on(here: Project) -> None:
    here("run", "users")
    before = here.told("state", "show", "users")
    done = here("state", "reset", "users")
    assert done.code == 64
    assert "--yes" in done.err
    assert here.told("state", "show", "users") == before
    assert here("state", "reset", "users", "--yes").code == 0


def test_a_running_sync_is_not_moved(here: Project) -> None:
    with closing(here.store()) as store:
        store.begin("users", "f")
        assert here("state", "reset", "users", "--yes").code == 75
        assert here("state", "set", "users", "1764000000").code == 75


# ------------------------------------------------------------------------------- export, import

ELSEWHERE = {"RETL_STATE": "sqlite:///elsewhere.db"}


def test_a_state_is_moved_by_a_file(here: Project) -> None:
    here("run", "users", "orders")
    file = here.folder / "state.json"
    done = here("state", "export", str(file), "--history")
    assert done.code == 0
    assert "2 syncs" in done.err
    assert file.stat().st_mode & 0o077 == 0
    assert sorted(one.name for one in here.folder.iterdir() if "state.json" in one.name) == [
        "state.json"
    ]
    done = here("state", "import", str(file), **ELSEWHERE)
    assert done.code == 0
    assert "2 syncs and 2 runs" in done.err
    assert here("runs", "--json", **ELSEWHERE).json == here.told("runs")
    assert here("state", "show", "--json", **ELSEWHERE).json == here.told("state", "show")
    assert "had runs here" in here("state", "import", str(file), **ELSEWHERE).err
    # And the next run there goes on where the last one here was.
    assert here("run", "users", **ELSEWHERE).code == 0
    (last, _) = here("runs", "users", "--json", **ELSEWHERE).json
    assert last["window_start"] == here.told("state", "show", "users")["last_sync_time"]


def test_a_file_that_is_there_is_replaced_as_a_whole(here: Project) -> None:
    file = here.folder / "state.json"
    file.write_text("x" * 100_000)
    assert here("state", "export", str(file)).code == 0
    assert json.loads(file.read_text())["syncs"] == {}


def test_export_prints_and_says_what_is_not_in_it(here: Project) -> None:
    here("run", "lost")
    done = here("state", "export")
    assert done.json["syncs"] == {"lost": {"last_sync_time": 0, "completed_runs": 0}}
    assert "lost: unfinished" in done.err
    assert "not sent yet" in done.err


def test_import_refuses_and_is_forced(here: Project) -> None:
    here("run", "users")
    file = here.folder / "state.json"
    here("state", "export", str(file))
    document = json.loads(file.read_text())
    document["syncs"] = {"users": {"last_sync_time": 1, "completed_runs": 1}, "nobody": document[
        "syncs"]["users"]}  # fmt: skip
    file.write_text(json.dumps(document))
    done = here("state", "import", str(file))
    assert done.code == 78
    assert "--force" in done.err
    done = here("state", "import", str(file), "--force")
    assert done.code == 0
    assert "Not in the configuration: nobody" in done.err
    assert here.told("state", "show", "users")["last_sync_time"] == 1


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [(None, 64, "can't be read"), ("{", 64, "not JSON"), ("[]", 78, "no exported state")],
)
def test_import_of_something_else(here: Project, content: str | None, code: int, said: str) -> None:
    file = here.folder / "state.json"
    if content is not None:
        file.write_text(content)
    done = here("state", "import", str(file))
    assert done.code == code
    assert said in done.err


def test_export_to_where_nothing_can_be_written(here: Project) -> None:
    done = here("state", "export", str(here.folder / "no" / "state.json"))
    assert done.code == 64
    assert "can't be written" in done.err
