"""The official google-cloud-bigquery client against the local BigQuery's REST API."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from aiohttp import web
from dateutil.relativedelta import relativedelta
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from pipeline.local.bigquery.errors import LocalError
from pipeline.local.bigquery.jobs import Jobs
from pipeline.local.bigquery.rest import add_routes
from pipeline.local.bigquery.tables import Provided
from pipeline.local.bigquery.warehouse import Warehouse

PROJECT = "my-project"


@contextmanager
def serving(warehouse: Warehouse, jobs: Jobs | None = None) -> Iterator[str]:
    """The base URL of a server in a thread of its own."""
    address: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        app = web.Application()
        add_routes(app, warehouse, jobs)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        stop = asyncio.Event()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        address.set_result((url, asyncio.get_running_loop(), stop))
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    url, loop, stop = address.result(10)
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@contextmanager
def connected(url: str) -> Iterator[bigquery.Client]:
    client = bigquery.Client(
        project=PROJECT,
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": url},
    )
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="module")
def warehouse() -> Iterator[Warehouse]:
    made = Warehouse()
    yield made
    made.close()


@pytest.fixture(scope="module")
def url(warehouse: Warehouse) -> Iterator[str]:
    with serving(warehouse) as served:
        yield served


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[bigquery.Client]:
    with connected(url) as made:
        made.create_dataset("app")
        made.query(
            "CREATE TABLE app.users AS SELECT id, CONCAT('user', CAST(id AS STRING)) AS name, "
            "TIMESTAMP_SECONDS(1700000000 + id) AS last_updated, "
            "DATETIME '2024-01-01 00:00:00' AS created "
            "FROM UNNEST(GENERATE_ARRAY(1, 12345)) AS id"
        ).result()
        yield made


def config(**options: Any) -> bigquery.QueryJobConfig:
    return bigquery.QueryJobConfig(**options)


def test_a_query_job_and_its_result_table(client: bigquery.Client, warehouse: Warehouse) -> None:
    job = client.query(
        "SELECT id AS userId, created FROM app.users WHERE UNIX_SECONDS(last_updated) >= 0",
        job_config=config(labels={"sync": "users"}, priority="BATCH"),
        job_id="job-1",
        job_retry=None,
    )
    assert len(list(job.result(page_size=5000))) == 12_345
    assert job.state == "DONE"
    assert job.statement_type == "SELECT"
    assert job.labels == {"sync": "users"}
    assert job.priority == "BATCH"
    assert job.cache_hit is False
    assert job.total_bytes_processed == 12_345 * 24
    assert job.total_bytes_billed == 10 << 20
    assert job.slot_millis > 0
    assert job.created <= job.started <= job.ended
    assert [str(t) for t in job.referenced_tables] == [f"{PROJECT}.app.users"]
    table = job.destination
    assert table.dataset_id.startswith("_")
    assert table.table_id.startswith("anon")
    data = warehouse.table(table.project, table.dataset_id, table.table_id).read_all()
    assert data.column("userId").to_pylist() == list(range(1, 12_346))
    metadata = data.schema.field("created").metadata
    assert metadata[b"ARROW:extension:name"] == b"google:sqlType:datetime"
    assert client.get_job("job-1").ended == job.ended
    assert "job-1" in [listed.job_id for listed in client.list_jobs()]
    assert table.dataset_id not in [d.dataset_id for d in client.list_datasets()]


def test_a_taken_job_id_is_a_conflict_and_finds_the_job(client: bigquery.Client) -> None:
    client.query("SELECT 1", job_id="job-2", job_retry=None).result()
    with pytest.raises(exceptions.Conflict, match=f"Already Exists: Job {PROJECT}:US.job-2"):
        client.query("SELECT 1", job_id="job-2", job_retry=None)
    with pytest.raises(exceptions.NotFound, match=f"Not found: Job {PROJECT}:job-x"):
        client.get_job("job-x")


def test_dry_run(client: bigquery.Client) -> None:
    job = client.query("SELECT id, name FROM app.users", job_config=config(dry_run=True))
    assert job.statement_type == "SELECT"
    assert job.total_bytes_processed > 12_345 * 8
    assert [(f.name, f.field_type) for f in job.schema] == [("id", "INTEGER"), ("name", "STRING")]
    script = client.query("SELECT 1; SELECT 2", job_config=config(dry_run=True))
    assert script.statement_type == "SCRIPT"
    delete = client.query("DELETE FROM app.users WHERE TRUE", job_config=config(dry_run=True))
    assert delete.statement_type == "DELETE"
    assert client.get_table("app.users").num_rows == 12_345


def test_rows_of_every_type(client: bigquery.Client) -> None:
    (row,) = client.query_and_wait(
        """SELECT 1 AS a, 1.5 b, NUMERIC '1.5' c, BIGNUMERIC '-1.5' d, TRUE e, 'é' f, b'\\xff' g,
        DATE '2024-01-02' h, TIME '01:02:03.5' i, DATETIME '1969-12-31 23:59:59.5' j,
        TIMESTAMP '1969-12-31 23:59:59.5+00' k, JSON '{"a": [1]}' l, ST_GEOGPOINT(1, 2) m,
        INTERVAL '1-2 3 4:5:6.5' YEAR TO SECOND n, RANGE<DATE> '[2020-01-01, UNBOUNDED)' o,
        STRUCT(1 AS x, [STRUCT('y' AS y)] AS z) p, [1, 2] q, CAST('nan' AS FLOAT64) r,
        CAST(NULL AS STRING) s, CAST(NULL AS ARRAY<INT64>) t"""
    )
    values = dict(row.items())
    assert str(values.pop("r")) == "nan"
    assert values == {
        "a": 1,
        "b": 1.5,
        "c": Decimal("1.5"),
        "d": Decimal("-1.5"),
        "e": True,
        "f": "é",
        "g": b"\xff",
        "h": dt.date(2024, 1, 2),
        "i": dt.time(1, 2, 3, 500_000),
        "j": dt.datetime(1969, 12, 31, 23, 59, 59, 500_000),  # noqa: DTZ001 - a DATETIME
        "k": dt.datetime(1969, 12, 31, 23, 59, 59, 500_000, dt.UTC),
        "l": {"a": [1]},
        "m": "POINT(1 2)",
        "n": relativedelta(
            years=1, months=2, days=3, hours=4, minutes=5, seconds=6, microseconds=500_000
        ),
        "o": {"start": dt.date(2020, 1, 1), "end": None},
        "p": {"x": 1, "z": [{"y": "y"}]},
        "q": [1, 2],
        "s": None,
        "t": [],
    }


def test_pages(client: bigquery.Client) -> None:
    assert len(list(client.query_and_wait("SELECT id FROM app.users"))) == 12_345
    assert len(list(client.query_and_wait("SELECT id FROM app.users", page_size=1000))) == 12_345
    assert len(list(client.query_and_wait("SELECT id FROM app.users", max_results=7))) == 7
    rows = client.list_rows("app.users", max_results=3, start_index=10)
    assert [row["id"] for row in rows] == [11, 12, 13]
    job = client.query("SELECT id FROM app.users WHERE id < 0")
    assert list(job.result()) == []
    assert job.destination.table_id.startswith("anon")


def test_dml_and_ddl_statistics(client: bigquery.Client) -> None:
    created = client.query("CREATE TABLE app.small (id INT64)")
    created.result()
    assert created.statement_type == "CREATE_TABLE"
    assert created.ddl_operation_performed == "CREATE"
    assert created.ddl_target_table.table_id == "small"
    inserted = client.query("INSERT INTO app.small VALUES (1), (2)")
    inserted.result()
    assert inserted.statement_type == "INSERT"
    assert inserted.num_dml_affected_rows == 2
    updated = client.query_and_wait("UPDATE app.small SET id = 3 WHERE id = 2")
    assert updated.num_dml_affected_rows == 1
    script = client.query("DELETE FROM app.small WHERE id = 1; SELECT * FROM app.small")
    assert [tuple(row) for row in script.result()] == [(3,)]
    assert script.statement_type == "SCRIPT"


def test_default_dataset_and_destination_table(client: bigquery.Client) -> None:
    options = {"default_dataset": f"{PROJECT}.app", "destination": f"{PROJECT}.app.kept"}
    client.query("SELECT id FROM users LIMIT 2", job_config=config(**options)).result()
    assert client.get_table("app.kept").num_rows == 2
    with pytest.raises(exceptions.Conflict, match="Already Exists: Table"):
        client.query("SELECT 1 AS id", job_config=config(**options)).result()
    for disposition, rows in (("WRITE_APPEND", 3), ("WRITE_TRUNCATE", 1)):
        chosen = config(**options, write_disposition=disposition)
        client.query("SELECT 1 AS id", job_config=chosen).result()
        assert client.get_table("app.kept").num_rows == rows


def test_maximum_bytes_billed(client: bigquery.Client) -> None:
    message = "Query exceeded limit for bytes billed: 1000. 10485760 or higher required."
    job = client.query("SELECT * FROM app.users", job_config=config(maximum_bytes_billed=1000))
    with pytest.raises(exceptions.GoogleAPICallError, match=message):
        job.result()
    job.reload()
    assert job.error_result == {"reason": "bytesBilledLimitExceeded", "message": message}
    enough = config(maximum_bytes_billed=10_485_760)
    assert client.query("SELECT * FROM app.users", job_config=enough).result().total_rows == 12_345


@pytest.mark.parametrize(
    ("query", "error", "reason", "message"),
    [
        ("SELECT * FROM app.none", exceptions.NotFound, "notFound", "Not found: Table my-project"),
        ("SELECT * FROM forbidden.t", exceptions.Forbidden, "accessDenied", "Access Denied: Table"),
        ("SELECT a b c", exceptions.BadRequest, "invalidQuery", "Syntax error: Unexpected"),
        ("SELECT x FROM app.users", exceptions.BadRequest, "invalidQuery", "Unrecognized name: x"),
        (
            "SELECT id FROM app.users WHERE last_updated >= 0",
            exceptions.BadRequest,
            "invalidQuery",
            "No matching signature for operator >= for argument types: TIMESTAMP, INT64",
        ),
        (
            "SELECT UNIX_SECONDS(created) FROM app.users",
            exceptions.BadRequest,
            "invalidQuery",
            "No matching signature for function UNIX_SECONDS\n  Argument types: DATETIME",
        ),
    ],
)
def test_errors_of_dry_runs_and_of_jobs(
    client: bigquery.Client, query: str, error: type[Exception], reason: str, message: str
) -> None:
    with pytest.raises(error) as dry:
        client.query(query, job_config=config(dry_run=True))
    with pytest.raises(error) as ran:
        client.query(query).result()
    with pytest.raises(error) as direct:
        client.query_and_wait(query)
    for caught in (dry, ran, direct):
        assert isinstance(caught.value, exceptions.GoogleAPICallError)
        assert message in str(caught.value)
        assert caught.value.errors[0]["reason"] == reason


def test_datasets_and_tables(client: bigquery.Client) -> None:
    client.create_dataset("other")
    client.create_dataset("other", exists_ok=True)
    with pytest.raises(exceptions.Conflict, match="Already Exists: Dataset"):
        client.create_dataset("other")
    schema = [
        bigquery.SchemaField("id", "INT64", mode="REQUIRED"),
        bigquery.SchemaField("j", "JSON"),
        bigquery.SchemaField("s", "RECORD", fields=[bigquery.SchemaField("a", "BIGNUMERIC")]),
        bigquery.SchemaField("l", "GEOGRAPHY", mode="REPEATED"),
        bigquery.SchemaField("r", "RANGE", range_element_type="DATE"),
    ]
    client.create_table(bigquery.Table(f"{PROJECT}.other.t", schema))
    with pytest.raises(exceptions.Conflict, match="Already Exists: Table"):
        client.create_table(bigquery.Table(f"{PROJECT}.other.t", schema))
    table = client.get_table("other.t")
    assert [(f.name, f.field_type, f.mode) for f in table.schema] == [
        ("id", "INTEGER", "REQUIRED"),
        ("j", "JSON", "NULLABLE"),
        ("s", "RECORD", "NULLABLE"),
        ("l", "GEOGRAPHY", "REPEATED"),
        ("r", "RANGE", "NULLABLE"),
    ]
    assert (table.num_rows, table.num_bytes, table.table_type) == (0, 0, "TABLE")
    client.query("CREATE VIEW other.v AS SELECT id FROM other.t").result()
    assert client.get_table("other.v").table_type == "VIEW"
    assert [t.table_id for t in client.list_tables("other")] == ["t", "v"]
    client.delete_table("other.t")
    with pytest.raises(exceptions.NotFound):
        client.get_table("other.t")
    with pytest.raises(exceptions.BadRequest, match="still in use"):
        client.delete_dataset("other")
    client.delete_dataset("other", delete_contents=True)
    with pytest.raises(exceptions.NotFound, match="Dataset my-project:other"):
        client.get_dataset("other")
    with pytest.raises(exceptions.Forbidden):
        client.list_tables("forbidden").__next__()


def test_cancel(client: bigquery.Client) -> None:
    job = client.query("SELECT SUM(a.id * b.id * c.id) FROM app.users a, app.users b, app.users c")
    assert job.cancel()
    with pytest.raises(exceptions.GoogleAPICallError, match="Job execution was cancelled"):
        job.result()


def test_a_table_from_outside(client: bigquery.Client, warehouse: Warehouse) -> None:
    data = pa.table({"id": [1, 2, 3]})
    provided = Provided(schema=data.schema, rows=3, nbytes=24, read=data.slice)
    warehouse.provide("bench", "users", provided)
    job = client.query("SELECT * FROM bench.users")
    assert [row["id"] for row in job.result(page_size=2)] == [1, 2, 3]
    assert job.destination == bigquery.TableReference.from_string(f"{PROJECT}.bench.users")
    assert job.total_bytes_processed == 24
    assert client.get_table("bench.users").num_rows == 3
    with pytest.raises(exceptions.MethodNotImplemented, match="other than SELECT"):
        client.query("SELECT id FROM bench.users").result()
    assert warehouse.table(PROJECT, "bench", "users").read_all() == data


def post(url: str, body: bytes) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("jobs", {"configuration": {"query": {"query": "SELECT 1"}}}, 501, "legacy SQL"),
        ("jobs", {"configuration": {"load": {}}}, 501, "load jobs"),
        ("jobs", {"configuration": {"query": {"useLegacySql": False}}}, 400, "missing: query"),
        ("jobs", {}, 400, "missing: query"),
        (
            "queries",
            {"query": "SELECT @a", "useLegacySql": False, "queryParameters": [{}]},
            501,
            "query parameters",
        ),
        ("datasets", {}, 400, "malformed"),
        ("routines", {}, 501, "POST /bigquery/v2/projects/my-project/routines"),
    ],
)
def test_what_is_refused_says_so_in_bigquerys_shape(
    url: str, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    got, answer = post(f"{url}/bigquery/v2/projects/{PROJECT}/{path}", json.dumps(body).encode())
    assert got == status
    error = answer["error"]
    assert error["code"] == status
    assert message in error["message"]
    assert error["errors"][0]["message"] == error["message"]
    assert error["errors"][0]["domain"] == "global"
    assert error["status"] in ("INVALID_ARGUMENT", "UNIMPLEMENTED")


def test_a_body_that_is_not_json(url: str) -> None:
    for body in (b"{", b"[]"):
        status, answer = post(f"{url}/bigquery/v2/projects/{PROJECT}/jobs", body)
        assert status == 400
        assert answer["error"]["errors"][0]["reason"] == "parseError"


def test_result_tables_end_after_their_time() -> None:
    warehouse, now = Warehouse(), [1000.0]
    jobs = Jobs(warehouse, result_seconds=60, clock=lambda: now[0])
    query = {"query": {"query": "SELECT 1 AS a", "useLegacySql": False}}
    first = jobs.insert(PROJECT, "first", query)
    first.done.result(10)
    assert first.result is not None
    assert warehouse.rows(first.result) == 1
    now[0] += 61
    jobs.insert(PROJECT, "second", query).done.result(10)
    with pytest.raises(LocalError, match="Not found: Table"):
        warehouse.columns(first.result)
    jobs.close()
    warehouse.close()
