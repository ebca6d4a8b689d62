"""A whole system on loopback: local BigQuery, the engine, local Customer.io, with faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from pipeline.config import load_config
from pipeline.events import Event
from pipeline.local.bigquery.messages import MESSAGE_BYTES
from pipeline.local.bigquery.server import Address
from pipeline.local.bigquery.server import serve as serve_bigquery
from pipeline.local.customerio.server import serve as serve_customerio
from pipeline.local.faults import FaultPlan
from pipeline.run.report import RunReport
from pipeline.wiring import open_store, run_sync

KEY = "sk-the-secret-key"
CONFIG = """
version: 1
sources:
  warehouse: {{type: bigquery, project: local, endpoint: "{rest}", storage_endpoint: "http://{storage}"}}
destinations:
  cio: {{type: customerio, api_key: {key}, endpoint: "{customerio}/v1"}}
syncs:
  users:
    source: warehouse
    call: identify
    destinations: [cio]
    query: {query}
send: {{concurrency: 4, retry_deadline: {deadline}, timeout: 2s}}
"""


@dataclass
class System:
    folder: Path
    address: Address
    customerio: str
    client: bigquery.Client
    plan: FaultPlan = field(default_factory=FaultPlan)
    events: list[Event] = field(default_factory=list)

    async def sql(self, statement: str) -> None:
        await asyncio.to_thread(lambda: self.client.query(statement).result())

    async def run(
        self,
        query: str = "SELECT id AS userId, name FROM app.users",
        *,
        key: str = KEY,
        deadline: str = "20s",
        customerio: str | None = None,
        stop: asyncio.Event | None = None,
        **env: str,
    ) -> RunReport:
        path = self.folder / "retl.yml"
        text = CONFIG.format(
            rest=self.address.rest,
            storage=self.address.storage,
            customerio=customerio or self.customerio,
            query=json.dumps(query),
            key=key,
            deadline=deadline,
        )
        await asyncio.to_thread(path.write_text, text)
        config = load_config(path, env)
        return await run_sync(config, "users", observer=self.events.append, stop=stop)

    def letters(self) -> list[tuple[int, str]]:
        store = open_store(load_config(self.folder / "retl.yml", {}))
        found = [(x.letter.row, x.letter.reason) for x in store.dead_letters(limit=10**6)]
        store.close()
        return sorted(found)

    async def stats(self) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.customerio}/_local/stats") as answer,
        ):
            found: dict[str, Any] = await answer.json()
        return found

    def received(self) -> list[dict[str, Any]]:
        lines = (self.folder / "received.ndjson").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


Starter = Callable[..., AbstractAsyncContextManager[System]]


@pytest.fixture
def system(tmp_path: Path) -> Starter:
    """`async with system(rows=.., bigquery=PLAN, customerio=PLAN) as one:`"""

    @asynccontextmanager
    async def start(
        *,
        rows: int = 0,
        bigquery_faults: str = "",
        customerio_faults: str = "",
        message_rows: int = 500,
        message_bytes: int = MESSAGE_BYTES,
        **options: Any,
    ) -> AsyncIterator[System]:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        address: asyncio.Future[Address] = loop.create_future()
        url: asyncio.Future[str] = loop.create_future()
        plan = FaultPlan.parse(bigquery_faults)
        servers = [
            asyncio.create_task(
                serve_bigquery(
                    faults=plan,
                    message_rows=message_rows,
                    message_bytes=message_bytes,
                    ready=address.set_result,
                    stop=stop,
                )
            ),
            asyncio.create_task(
                serve_customerio(
                    keys=[KEY],
                    record=tmp_path / "received.ndjson",
                    unique=True,
                    faults=FaultPlan.parse(customerio_faults) if customerio_faults else None,
                    ready=url.set_result,
                    stop=stop,
                    **options,
                )
            ),
        ]
        where = await address
        client = bigquery.Client(
            project="local",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": where.rest},
        )
        one = System(folder=tmp_path, address=where, customerio=await url, client=client, plan=plan)
        try:
            await one.sql("CREATE SCHEMA app")
            await one.sql(
                "CREATE TABLE app.users AS "
                "SELECT id, CONCAT('Name of ', CAST(id AS STRING)) AS name "
                f"FROM UNNEST(GENERATE_ARRAY(1, {rows})) AS id"
            )
            yield one
        finally:
            client.close()
            stop.set()
            await asyncio.gather(*servers)

    return start
