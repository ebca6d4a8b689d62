"""A local Storage Read API of one table, and the reader on it, at the level of the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.local.bigquery.memory import MemoryTable
from pipeline.local.bigquery.proxy import Proxy
from pipeline.local.bigquery.read_api import ReadApi, start
from pipeline.local.faults import CONNECTION, FaultPlan
from pipeline.model import Reading
from pipeline.source.client import Connection
from pipeline.source.read import row_count
from pipeline.source.storage import Storage
from pipeline.source.streams import stream_count

TABLE = "projects/p/datasets/d/tables/t"


@dataclass
class Served:
    """storage: the reader. proxy: before the server, if the plan speaks of connections."""

    storage: Storage
    plan: FaultPlan
    proxy: Proxy | None
    port: int
    connection: Connection

    async def reading(self, *, readers: int = 4, table: str = TABLE) -> Reading:
        session = await self.storage.session(table, streams=stream_count(readers))
        return Reading(
            streams=tuple(stream.name for stream in session.streams),
            schema=session.arrow_schema.serialized_schema,
            query_started=0,
            rows=row_count(session),
            expires=int(session.expire_time.timestamp()),
        )

    async def rows(self, reading: Reading, column: int = 0) -> list[Any]:
        found = []
        for stream in range(len(reading.streams)):
            async with aclosing(self.storage.read(reading, stream, 0)) as frames:
                async for frame in frames:
                    found += frame.record_batch().column(column).to_pylist()
        return found


class _Tables:
    def __init__(self, data: pa.Table) -> None:
        self._data = data

    def table(self, *_names: str, **_options: Any) -> pa.Table:
        return self._data


@asynccontextmanager
async def read_server(
    data: pa.Table | MemoryTable, *, faults: str = "", readers: int = 4, **options: Any
) -> AsyncIterator[Served]:
    """A server of `data` as TABLE. readers: streams read at a time. options: of ReadApi."""
    plan = FaultPlan.parse(faults)
    synthetic = {("d", "t"): data} if isinstance(data, MemoryTable) else None
    tables = _Tables(pa.table({}) if isinstance(data, MemoryTable) else data)
    api = ReadApi(tables, synthetic=synthetic, faults=plan, **options)
    server, port = await start(api)
    proxy = Proxy(plan) if plan.mentions(CONNECTION) else None
    if proxy is not None:
        port = await proxy.start("127.0.0.1", 0, port)
    connection = Connection(
        project="p",
        storage_endpoint=f"127.0.0.1:{port}",
        user_agent="retl/1",
        readers=readers,
    )
    storage = Storage(connection, where="sync users")
    try:
        yield Served(storage, plan, proxy, port, connection)
    finally:
        await storage.close()
        if proxy is not None:
            await proxy.close()
        await server.stop(None)
        api.close()
