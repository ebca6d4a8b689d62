"""The BigQuery source over the local BigQuery, for tests: made, started, read to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from pipeline.local.bigquery.server import Address, serve
from pipeline.local.faults import FaultPlan
from pipeline.model import Reading, Window
from pipeline.ports import Source
from pipeline.source.bigquery import BigQuery
from pipeline.source.client import Connection
from pipeline.source.query import JobSettings
from pipeline.source.table import BigQueryTable

WINDOW = Window(start=1_700_000_000, sequence=2)
SETUP = """
CREATE SCHEMA app;
CREATE TABLE app.users AS SELECT id, TIMESTAMP_SECONDS(1699990000 + id) AS seen,
  DATETIME '2024-01-02 03:04:05' AS created FROM UNNEST(GENERATE_ARRAY(1, 30000)) AS id;
CREATE TABLE app.none (id INT64);
"""


@dataclass
class Service:
    connection: Connection
    client: bigquery.Client

    def source(self, query: str, **settings: Any) -> BigQuery:
        names = {field.name for field in fields(JobSettings)}
        jobs = {"maximum_bytes_billed": 10**9, "labels": {"team": "data"}} | {
            name: settings.pop(name) for name in names & settings.keys()
        }
        defaults = {"lookback": 0, "streams": 2, "jobs": JobSettings(**jobs)}
        return BigQuery(self.connection, where="sync users", query=query, **(defaults | settings))

    def table(self, table: str, **settings: Any) -> BigQueryTable:
        defaults = {"lookback": 0, "streams": 2, "jobs": JobSettings(maximum_bytes_billed=10**9)}
        return BigQueryTable(
            self.connection, where="sync users", table=table, **(defaults | settings)
        )

    async def run(self, sql: str) -> None:
        await asyncio.to_thread(lambda: self.client.query(sql).result())

    async def job(self, job_id: str) -> bigquery.QueryJob:
        found = await asyncio.to_thread(self.client.get_job, job_id)
        assert isinstance(found, bigquery.QueryJob)
        return found

    async def rows(self, query: str, **settings: Any) -> list[int]:
        source = self.source(query, **settings)
        reading = await source.start(WINDOW, "key")
        found = [
            row
            for stream in range(len(reading.streams))
            for row in await read(source, reading, stream)
        ]
        await source.close()
        return found


async def read(source: Source, reading: Reading, stream: int, first: int = 0) -> list[int]:
    found, at = [], first
    async with aclosing(source.read(reading, stream, first)) as frames:
        async for frame in frames:
            batch = frame.record_batch()
            assert (frame.span.first, frame.span.rows) == (at, batch.num_rows)
            assert frame.nbytes > 0
            at = frame.span.end
            found += batch.column(0).to_pylist()
    return found


@asynccontextmanager
async def running(plan: str = "") -> AsyncIterator[Service]:
    ready: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    serving = asyncio.create_task(
        serve(faults=FaultPlan.parse(plan) if plan else None, ready=ready.set_result, stop=stop)
    )
    address = await ready
    connection = Connection(
        project="local", endpoint=address.rest, storage_endpoint=address.storage, user_agent="retl"
    )
    client = bigquery.Client(
        project="local",
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": address.rest},
    )
    try:
        service = Service(connection, client)
        for statement in SETUP.split(";")[:-1]:
            await service.run(statement)
        yield service
    finally:
        client.close()
        stop.set()
        await serving
