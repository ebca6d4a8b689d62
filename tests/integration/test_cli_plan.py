"""`retl plan` against a BigQuery on this machine: what is known, what it costs, what is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from local_services import KEY, Done, Services, retl, services

pytestmark = pytest.mark.slow

ROWS = 5_000
# A quarter of the rows has no id.
QUERY = (
    "SELECT IF(MOD(id, 4) = 0, NULL, id) AS userId, REPEAT('x', 300) AS name "
    f"FROM UNNEST(GENERATE_ARRAY(1, {ROWS})) AS id; -- a comment; at the end"
)
CONFIG = """
version: 1
sources:
  warehouse:
    type: bigquery
    project: local
    endpoint: "{rest}"
    storage_endpoint: "http://{storage}"
    price_per_tib: {price}
  lake: {{type: file, path: users.parquet}}
destinations:
  cio: {{type: customerio, api_key: {key}, endpoint: "{customerio}/v1"}}
  out: {{type: file, path: out.ndjson}}
syncs:
  users: {{source: warehouse, call: identify, destinations: [cio, out], query: {query}}}
  few: {{source: warehouse, call: identify, destinations: [cio], query: SELECT 7 AS userId}}
  stored: {{source: warehouse, call: identify, destinations: [cio], query: SELECT * FROM app.users}}
  table: {{source: warehouse, call: identify, destinations: [cio], table: app.users}}
  old: {{source: warehouse, call: track, destinations: [cio], query: {old}}}
  secret: {{source: warehouse, call: track, destinations: [cio], query: SELECT * FROM forbidden.t}}
  broken: {{source: warehouse, call: identify, destinations: [cio], query: {broken}}}
  nobody: {{source: warehouse, call: identify, destinations: [cio], query: SELECT 7 AS plan}}
  long: {{source: warehouse, call: identify, destinations: [cio, out], query: {long}}}
  files: {{source: lake, call: identify, destinations: [cio]}}
send: {{concurrency: 4, rate_limit: {{rows_per_second: {rows_per_second}}}}}
"""
BROKEN = "SELECT 1 / (userId - userId) AS userId FROM app.users"
LONG = "SELECT 7 AS userId, REPEAT('x', 100) AS messageId"
OLD = "SELECT 7 AS userId, 'seen' AS event, TIMESTAMP '2020-01-01' AS timestamp"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("services")) as found:
        client = bigquery.Client(
            project="local",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": found.rest},
        )
        numbers = f"UNNEST(GENERATE_ARRAY(1, {ROWS}))"
        for statement in (
            "CREATE SCHEMA app",
            f"CREATE TABLE app.users AS SELECT id AS userId FROM {numbers} AS id",
        ):
            client.query(statement).result()
        client.close()
        yield found


def plan(
    folder: Path,
    found: Services,
    *arguments: str,
    price: float = 6.25,
    rows_per_second: str = "null",
    env: Mapping[str, str] | None = None,
) -> Done:
    ids = pa.array(range(1_234), type=pa.int64())
    pq.write_table(pa.table({"userId": ids}), folder / "users.parquet")
    config = folder / "retl.yml"
    config.write_text(
        CONFIG.format(
            rest=found.rest,
            storage=found.storage,
            customerio=found.customerio,
            key=KEY,
            price=price,
            query=json.dumps(QUERY),
            old=json.dumps(OLD),
            broken=json.dumps(BROKEN),
            long=json.dumps(LONG),
            rows_per_second=rows_per_second,
        ),
        encoding="utf-8",
    )
    done = retl(config, "plan", *arguments, env=env)
    assert KEY not in done.out + done.err
    return done


def one(done: Done) -> dict[str, Any]:
    (found,) = done.json["plans"]
    assert isinstance(found, dict)
    return found


def test_what_the_sample_can_tell_and_what_it_can_t(tmp_path: Path, both: Services) -> None:
    before = both.stats()["requests"]
    done = plan(tmp_path, both, "users", "--json")
    found = one(done)
    assert done.code == 0
    assert (found["rows"], found["rows_known_by"], found["queries_run"]) == (None, "unknown", 1)
    lane = found["destinations"]["cio"]
    assert lane["sample"]["rows"] == 100
    assert lane["sample"]["invalid"] == {"missing_id": 25}
    assert lane["calls"] is lane["requests"] is lane["seconds"] is None
    assert len(found["payloads"]) == 3
    assert found["payloads"][0]["payload"]["traits"] == {"name": "x" * 300}
    assert both.stats()["requests"] == before, "nothing is sent"
    assert {path.name for path in tmp_path.iterdir()} == {"retl.yml", "users.parquet"}, "no state"


def test_a_count_makes_calls_requests_and_seconds_of_it(tmp_path: Path, both: Services) -> None:
    found = one(plan(tmp_path, both, "users", "--rows", "--latency", "1", "--json"))
    assert (found["rows"], found["rows_known_by"], found["queries_run"]) == (ROWS, "count", 2)
    lane = found["destinations"]["cio"]
    assert lane["calls"] == ROWS * 3 // 4
    size = lane["sample"]["bytes"] / lane["sample"]["valid"]
    assert lane["requests"] == -(-round(lane["calls"] * size) // 480_000)
    assert lane["requests"] == 4
    assert lane["seconds"] == 1.0
    assert lane["bound"] == "send.concurrency"
    assert found["destinations"]["out"]["seconds"] == 0.0, "a file answers at once"


def test_a_rate_limit_says_how_long_it_takes(tmp_path: Path, both: Services) -> None:
    found = one(plan(tmp_path, both, "users", "--rows", "--json", rows_per_second="10"))
    lane = found["destinations"]["cio"]
    assert lane["seconds"] == pytest.approx(375.0)
    assert lane["bound"] == "send.rate_limit.rows_per_second"
    assert lane["requests"] == 3_750, "a second's rows are cut into ten"
    assert found["notes"] == []


def test_what_outlasts_a_read_session_is_warned_of(tmp_path: Path, both: Services) -> None:
    done = plan(tmp_path, both, "users", "--rows", rows_per_second="0.1")
    assert done.code == 0
    assert "longer than a read session lives" in done.out
    assert "10.4 h" in done.out
    spool = {"RETL_SPOOL_DIR": str(tmp_path)}
    spooled = plan(tmp_path, both, "users", "--rows", rows_per_second="0.1", env=spool)
    assert "longer than a read session lives" not in spooled.out


def test_a_sample_that_holds_all_rows_counts_them(tmp_path: Path, both: Services) -> None:
    found = one(plan(tmp_path, both, "few", "--rows", "--json"))
    assert (found["rows"], found["rows_known_by"], found["queries_run"]) == (1, "sample", 1)
    assert found["destinations"]["cio"]["requests"] == 1


def test_without_a_sample_only_the_dry_run_is_asked(tmp_path: Path, both: Services) -> None:
    done = plan(tmp_path, both, "stored", "--sample", "0", "--json", price=2**40)
    found = one(done)
    assert found["queries_run"] == 0
    assert found["bytes_processed"] > 0
    assert found["cost_usd"] == pytest.approx(found["bytes_processed"])
    assert found["payloads"] == []
    assert "0 queries were started" in done.err


def test_a_table_that_is_read_directly(tmp_path: Path, both: Services) -> None:
    found = one(plan(tmp_path, both, "table", "--json"))
    assert (found["rows"], found["rows_known_by"], found["queries_run"]) == (ROWS, "estimate", 0)
    assert found["cost_usd"] is None
    assert "Storage Read API's price" in found["notes"][0]
    counted = one(plan(tmp_path, both, "table", "--rows", "--json"))
    assert (counted["rows"], counted["rows_known_by"]) == (ROWS, "count")


def test_files_know_their_rows_and_cost_nothing(tmp_path: Path, both: Services) -> None:
    found = one(plan(tmp_path, both, "files", "--json"))
    assert (found["rows"], found["rows_known_by"], found["queries_run"]) == (1_234, "source", 0)
    assert found["cost_usd"] is None
    assert found["destinations"]["cio"]["calls"] == 1_234


def test_what_a_workspace_would_not_do_as_meant(tmp_path: Path, both: Services) -> None:
    done = plan(tmp_path, both, "old")
    assert "warning: older than 72 hours: it triggers no campaigns (1 of the sample)" in done.out


def test_for_people(tmp_path: Path, both: Services) -> None:
    done = plan(tmp_path, both, "users")
    assert done.code == 0
    assert "unknown" in done.out
    assert "25 %" in done.out
    assert "invalid: cio: missing_id: 25 of 100 rows of the sample" in done.out
    assert "--rows counts them" in done.out
    assert '"userId":"1"' in done.out
    assert "Nothing was sent. 1 query was started" in done.err


@pytest.mark.parametrize("columns", [80, 120])
def test_every_line_of_the_plan_fits_a_terminal(
    tmp_path: Path, both: Services, columns: int
) -> None:
    slow = {"rows_per_second": "10", "env": {"COLUMNS": str(columns)}}
    done = plan(tmp_path, both, "users", "table", "--rows", **slow)
    payloads = [line for line in done.out.splitlines() if line.startswith("{")]
    lines = [line for line in done.out.splitlines() if line not in payloads]
    assert max(map(len, lines)) <= columns
    assert [line.split() for line in lines if line.startswith(("scans", "rows", "cio", "out"))] == [
        ["scans", "0", "B,", "$0.00"],
        ["rows", "5,000,", "counted"],
        ["cio", "25", "%", "3,750", "3,750", "6", "min", "rows_per_second"],
        ["out", "25", "%", "3,750", "3,750", "6", "min", "rows_per_second"],
        ["scans", "40.0", "kB"],
        ["rows", "5,000,", "counted"],
        ["cio", "0", "%", "5,000", "5,000", "8", "min", "rows_per_second"],
    ]


def test_what_is_known_is_shown_when_the_sample_fails(tmp_path: Path, both: Services) -> None:
    done = plan(tmp_path, both, "broken", "--json")
    found = one(done)
    assert done.code == found["exit_code"] == 78
    assert found["bytes_processed"] > 0
    assert (found["rows"], found["rows_known_by"], found["queries_run"]) == (None, "unknown", 1)
    assert found["destinations"]["cio"]["calls"] is None
    assert "failed while it ran" in found["error"]
    shown = plan(tmp_path, both, "broken")
    assert shown.code == 78
    assert "scans  40.0 kB" in shown.out
    assert "incomplete: the look at the rows failed" in shown.out
    assert "failed while it ran" in shown.err
    assert "1 query was started" in shown.err


def test_what_is_known_is_shown_when_the_rows_fit_no_call(tmp_path: Path, both: Services) -> None:
    done = plan(tmp_path, both, "nobody", "--json")
    found = one(done)
    assert done.code == 78
    assert (found["rows"], found["rows_known_by"], found["queries_run"]) == (1, "sample", 1)
    assert "need a column userId" in found["error"]


def test_a_message_id_that_is_too_long_is_invalid(tmp_path: Path, both: Services) -> None:
    found = one(plan(tmp_path, both, "long", "--json"))
    assert found["destinations"]["cio"]["sample"]["invalid"] == {"message_id_too_long": 1}
    assert found["destinations"]["out"]["sample"]["invalid"] == {}


def test_one_sync_that_fails_does_not_keep_the_others(tmp_path: Path, both: Services) -> None:
    done = plan(tmp_path, both, "--all", "--json")
    assert done.code == 78
    found = {each["sync"]: each["exit_code"] for each in done.json["plans"]}
    assert (found.pop("secret"), found.pop("broken"), found.pop("nobody")) == (77, 78, 78)
    assert set(found.values()) == {0}
    assert "secret" in done.err


def test_a_plan_needs_a_sync(tmp_path: Path, both: Services) -> None:
    assert plan(tmp_path, both).code == 64
    assert plan(tmp_path, both, "user").code == 64
