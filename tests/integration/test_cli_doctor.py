"""`retl doctor` against a BigQuery and a Customer.io on this machine that grant or refuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from local_services import KEY, Done, Services, retl, services

pytestmark = pytest.mark.slow

CONFIG = """
version: 1
sources:
  warehouse:
    type: bigquery
    project: local
    endpoint: "{rest}"
    storage_endpoint: "http://{storage}"
  lake: {{type: file, path: missing.parquet}}
destinations:
  cio: {{type: customerio, api_key: {key}, endpoint: "{customerio}/v1"}}
  down: {{type: customerio, api_key: {key}, endpoint: "http://127.0.0.1:9/v1"}}
  hook: {{type: webhook, url: "{customerio}/nowhere"}}
  out: {{type: file, path: out.ndjson}}
syncs:
  users: {{source: warehouse, call: identify, destinations: [cio, out], query: SELECT 7 AS userId}}
  secret: {{source: warehouse, call: track, destinations: [cio], query: SELECT * FROM forbidden.t}}
  typo: {{source: warehouse, call: identify, destinations: [cio], query: SELECT * FROM nowhere.t}}
  down: {{source: warehouse, call: identify, destinations: [down], query: SELECT 7 AS userId}}
  hook: {{source: warehouse, call: identify, destinations: [hook], query: SELECT 7 AS userId}}
  files: {{source: lake, call: identify, destinations: [out]}}
"""
JOBS, SESSIONS = "bigquery.jobs.create", "bigquery.readsessions.create"
DATA = "bigquery.tables.getData"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("services")) as found:
        yield found


def doctor(folder: Path, found: Services, *arguments: str, key: str = KEY) -> Done:
    config = folder / "retl.yml"
    config.write_text(
        CONFIG.format(rest=found.rest, storage=found.storage, customerio=found.customerio, key=key),
        encoding="utf-8",
    )
    done = retl(config, "doctor", *arguments)
    assert key not in done.out + done.err
    return done


def outcomes(done: Done) -> Mapping[tuple[str, str], str]:
    return {(one["about"], one["check"]): one["outcome"] for one in done.json["findings"]}


def failures(done: Done) -> list[dict[str, Any]]:
    return [one for one in done.json["findings"] if one["outcome"] == "failed"]


def test_all_is_well(tmp_path: Path, both: Services) -> None:
    before = both.stats()["accepted"]
    done = doctor(tmp_path, both, "--sync", "users", "--json")
    assert done.code == 0, done.out
    assert done.json["exit_code"] == 0
    found = dict(outcomes(done))
    found.pop(("state", "room"))  # the machine's own business, as is the volume
    found.pop(("state", "volume"), None)
    assert found == {
        ("configuration", "load"): "ok",
        ("state", "open"): "ok",
        ("source warehouse", "credentials"): "ok",
        ("source warehouse", "token"): "skipped",
        ("source warehouse", "clock"): "ok",
        ("source warehouse", JOBS): "ok",
        ("source warehouse", SESSIONS): "ok",
        ("sync users", DATA): "ok",
        ("destination cio", "reachable"): "ok",
        ("destination cio", "key"): "ok",
        ("destination out", "writable"): "ok",
    }
    assert both.stats()["accepted"] == before, "no person's data is sent"
    assert {path.name for path in tmp_path.iterdir()} == {"retl.yml"}, "nothing is changed"


def test_for_people(tmp_path: Path, both: Services) -> None:
    done = doctor(tmp_path, both, "--sync", "secret")
    assert done.code == 77
    (line,) = [line for line in done.out.splitlines() if line.startswith("failed")]
    assert line.startswith(f"failed   sync secret  {DATA}  Access Denied: Table local:forbidden.t")
    assert "ON SCHEMA `local.forbidden`" in done.out
    assert "1 failed" in done.err


def test_a_table_that_is_refused_names_the_dataset(tmp_path: Path, both: Services) -> None:
    done = doctor(tmp_path, both, "--sync", "secret", "--output", "json")
    (failure,) = failures(done)
    assert done.code == 77
    assert (failure["about"], failure["check"]) == ("sync secret", DATA)
    assert "roles/bigquery.dataViewer" in failure["remedy"]
    assert failure["command"].startswith("bq query --project_id=local")


def test_a_query_that_can_t_work_is_a_matter_of_configuration(
    tmp_path: Path, both: Services
) -> None:
    done = doctor(tmp_path, both, "--sync", "typo", "--json")
    (failure,) = failures(done)
    assert (done.code, failure["about"]) == (78, "sync typo")
    assert failure["command"] == ""


def test_a_key_that_is_refused(tmp_path: Path, both: Services) -> None:
    done = doctor(tmp_path, both, "--sync", "users", "--json", key="sk-of-another")
    (failure,) = failures(done)
    assert (done.code, failure["about"], failure["check"]) == (77, "destination cio", "key")
    assert "region" in failure["remedy"]


def test_a_destination_that_is_down(tmp_path: Path, both: Services) -> None:
    done = doctor(tmp_path, both, "--sync", "down", "--json")
    (failure,) = failures(done)
    assert (done.code, failure["check"], failure["what"]) == (
        75,
        "reachable",
        "no answer (connect)",
    )
    assert outcomes(done)["destination down", "key"] == "skipped"


def test_a_webhook_at_the_wrong_url(tmp_path: Path, both: Services) -> None:
    done = doctor(tmp_path, both, "--sync", "hook", "--json")
    (failure,) = failures(done)
    assert (done.code, failure["check"], failure["remedy"]) == (78, "key", "Check `url`.")
    (reached,) = [one for one in done.json["findings"] if one["check"] == "reachable"]
    assert reached["what"] == "it is there, by plain http; it answers 404"


def test_files_that_are_missing(tmp_path: Path, both: Services) -> None:
    done = doctor(tmp_path, both, "--sync", "files", "--json")
    (failure,) = failures(done)
    assert (done.code, failure["about"], failure["check"]) == (78, "source lake", "files")


def test_a_file_destination_that_is_a_folder(tmp_path: Path, both: Services) -> None:
    (tmp_path / "out.ndjson").mkdir()
    done = doctor(tmp_path, both, "--sync", "users", "--json")
    (failure,) = failures(done)
    assert (done.code, failure["check"]) == (78, "writable")


def test_of_all_syncs_each_source_and_destination_is_checked_once(
    tmp_path: Path, both: Services
) -> None:
    done = doctor(tmp_path, both, "--json")
    checks = [(one["about"], one["check"]) for one in done.json["findings"]]
    assert len(checks) == len(set(checks))
    assert [one["about"] for one in failures(done)] == [
        "sync secret",
        "sync typo",
        "source lake",
        "destination down",
        "destination hook",
    ]
    assert done.code == 77, "that of the first failure"


def test_a_configuration_that_can_t_be_read(tmp_path: Path) -> None:
    config = tmp_path / "retl.yml"
    config.write_text("version: 2\n", encoding="utf-8")
    told = retl(config, "doctor")
    assert told.code == 78
    assert told.out.startswith("failed   configuration  load")
    assert "faults in the configuration" in told.err
    json = retl(config, "doctor", "--json")
    assert json.code == json.json["exit_code"] == 78


def test_a_sync_that_is_not_there_is_a_usage_error(tmp_path: Path, both: Services) -> None:
    assert doctor(tmp_path, both, "--sync", "user").code == 64


# ------------------------------------------------------------ permissions that are missing


def test_no_right_to_create_jobs(tmp_path: Path) -> None:
    with services(tmp_path, "- {on: dry_run, times: always, do: {status: 403}}") as both:
        done = doctor(tmp_path, both, "--sync", "users", "--json")
    (failure,) = failures(done)
    assert (done.code, failure["check"]) == (77, JOBS)
    assert "roles/bigquery.jobUser" in failure["remedy"]
    assert failure["command"].startswith("gcloud projects add-iam-policy-binding local")
    found = outcomes(done)
    assert found["source warehouse", SESSIONS] == "skipped"
    assert found["sync users", DATA] == "skipped"
    assert found["destination cio", "key"] == "ok", "the others are checked all the same"


def test_no_right_to_create_read_sessions(tmp_path: Path) -> None:
    message = (
        "request failed: the user does not have 'bigquery.readsessions.create' permission for "
        "'projects/local'"
    )
    plan = (
        "- {on: create_read_session, times: always, "
        f'do: {{error: PERMISSION_DENIED, message: "{message}"}}}}'
    )
    with services(tmp_path, plan) as both:
        done = doctor(tmp_path, both, "--sync", "users", "--json")
    (failure,) = failures(done)
    assert (done.code, failure["check"]) == (77, SESSIONS)
    assert "--role=roles/bigquery.readSessionUser" in failure["command"]
    assert outcomes(done)["sync users", DATA] == "ok"


def test_no_right_to_read_from_sessions(tmp_path: Path) -> None:
    message = (
        "there was an error operating on 's': the user does not have "
        "'bigquery.readsessions.getData' permission for 's'"
    )
    plan = (
        "- {on: read_rows, times: always, "
        f'do: {{error: PERMISSION_DENIED, message: "{message}"}}}}'
    )
    with services(tmp_path, plan) as both:
        done = doctor(tmp_path, both, "--sync", "users", "--json")
    (failure,) = failures(done)
    assert (done.code, failure["check"]) == (77, "bigquery.readsessions.getData")
