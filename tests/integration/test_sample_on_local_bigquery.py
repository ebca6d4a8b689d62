"""The sample through the real BigQuery client on the local BigQuery."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
import yaml

from pipeline.local.sample.load import changes, configuration, statements

bigquery = pytest.importorskip("google.cloud.bigquery")
pytest.importorskip("duckdb")

USERS = {
    "id": "INTEGER",
    "email_address": "STRING",
    "fname": "STRING",
    "lname": "STRING",
    "msisdn": "STRING",
    "plan": "STRING",
    "address": "RECORD",
    "tags": "STRING",
    "preferences": "JSON",
    "balance": "NUMERIC",
    "created": "DATETIME",
    "last_updated": "TIMESTAMP",
}


def check(rest: str) -> None:
    from google.auth.credentials import AnonymousCredentials

    client = bigquery.Client(
        project="local",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": rest},
    )
    text = configuration(rest=rest, storage="127.0.0.1:1", customerio="http://127.0.0.1:2")
    queries = {name: sync["query"] for name, sync in yaml.safe_load(text)["syncs"].items()}

    def moved(since: int) -> Mapping[str, int]:
        return {
            name: client.query(query.replace("{{last_sync_time}}", str(since))).result().total_rows
            for name, query in queries.items()
        }

    with client:
        for statement in statements(2000):
            client.query(statement).result()
        columns = client.get_table("local.app.users").schema
        assert {column.name: column.field_type for column in columns} == USERS
        everything = dict(zip(queries, (2000, 3000, 100, 200, 200, 20), strict=True))
        assert moved(0) == everything
        clock = client.query("SELECT UNIX_SECONDS(CURRENT_TIMESTAMP()) AS now").result()
        started = next(iter(clock)).now
        for statement in changes():
            client.query(statement).result()
        assert moved(started) == dict(zip(queries, (20, 20, 0, 20, 0, 0), strict=True))


@pytest.mark.slow
async def test_loading_syncing_and_changing() -> None:
    from pipeline.local.bigquery.server import Address, serve

    stop = asyncio.Event()
    ready: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(ready=ready.set_result, stop=stop))
    try:
        await asyncio.to_thread(check, (await ready).rest)
    finally:
        stop.set()
        await server
