"""One process that is a BigQuery: REST and the Storage Read API over one warehouse.

Synthetic tables live in the dataset `bench` of every project: their rows are ready bytes, read
through the Storage Read API alone, and a query `SELECT * FROM bench.NAME` has the table itself
for its result.
Prints nothing; ends when told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
from aiohttp import web

from pipeline.errors import ConfigError
from pipeline.local.bigquery.memory import MemoryTable
from pipeline.local.bigquery.messages import MESSAGE_BYTES, MESSAGE_ROWS
from pipeline.local.bigquery.proxy import Proxy
from pipeline.local.bigquery.read_api import ReadApi, start
from pipeline.local.bigquery.rest import add_routes
from pipeline.local.bigquery.rest_faults import striking
from pipeline.local.bigquery.sessions import SESSION_SECONDS, Sessions
from pipeline.local.bigquery.tables import Provided
from pipeline.local.bigquery.warehouse import Warehouse
from pipeline.local.faults import CONNECTION, FaultPlan

BENCH = "bench"
SYNTHETIC: Mapping[str, Callable[[int], MemoryTable]] = {"users": MemoryTable.users}
"""What can be asked for as a synthetic table, and how it is made from a number of rows."""

_BODY_BYTES = 16 * 2**20  # above BigQuery's 12 MB for a resolved query
_GRACE = 1.0  # seconds that calls under way get at the end


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens. rest: a base URL; storage: host:port, for gRPC without TLS."""

    rest: str
    storage: str


async def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    storage_port: int = 0,
    database: Path | None = None,
    synthetic: Mapping[str, int] | None = None,
    faults: FaultPlan | None = None,
    session_seconds: float = SESSION_SECONDS,
    message_rows: int = MESSAGE_ROWS,
    message_bytes: int = MESSAGE_BYTES,
    ready: Callable[[Address], None],
    stop: asyncio.Event,
) -> None:
    """Serve until `stop` is set.

    port, storage_port: of REST and of gRPC; 0 takes a free one. database: a DuckDB file; None:
    in memory. synthetic: name -> rows. session_seconds: how long a read session lives.
    message_rows: at most so many rows in a message, so fewer make more streams of a small table.
    message_bytes: about so many bytes at most.
    ready: called once, when both listen. Raises ConfigError for an unknown synthetic table and
    for a port that is taken.
    """
    tables = await asyncio.to_thread(_make, synthetic or {})
    warehouse = _open(database)
    for (dataset, name), table in tables.items():
        warehouse.provide(dataset, name, _provided(table))
    api = ReadApi(
        warehouse,
        synthetic=tables,
        faults=faults,
        sessions=Sessions(seconds=session_seconds),
        message_rows=message_rows,
        message_bytes=message_bytes,
    )
    middlewares = [striking(faults)] if faults else []
    app = web.Application(client_max_size=_BODY_BYTES, middlewares=middlewares)
    add_routes(app, warehouse)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE)
    await runner.setup()
    storage = None
    proxy = Proxy(faults) if faults and faults.mentions(CONNECTION) else None
    try:
        try:
            if proxy is None:
                storage, bound = await start(api, host=host, port=storage_port)
            else:
                storage, behind = await start(api)
                bound = await proxy.start(host, storage_port, behind)
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigError(
                f"The local BigQuery can't listen on {host}, ports {port} and {storage_port}: "
                f"{error}. Choose other ports, or 0 for free ones."
            ) from error
        ready(Address(rest=_url(runner), storage=_authority(host, bound)))
        await stop.wait()
    finally:
        if proxy is not None:
            await proxy.close()
        if storage is not None:
            await storage.stop(_GRACE)
        await runner.cleanup()
        api.close()
        warehouse.close()


def _make(rows: Mapping[str, int]) -> dict[tuple[str, str], MemoryTable]:
    for name, count in rows.items():
        if name not in SYNTHETIC or count < 0:
            raise ConfigError(
                f"There is no synthetic table {name} of {count} rows. "
                f"Known are: {', '.join(SYNTHETIC)}, with 0 rows or more."
            )
    return {(BENCH, name): SYNTHETIC[name](count) for name, count in rows.items()}


def _open(database: Path | None) -> Warehouse:
    try:
        return Warehouse(database)
    except duckdb.Error as error:
        raise ConfigError(
            f"The local BigQuery can't open its database {database}: {error}. "
            "Name a path that is writable and in no other process's use."
        ) from error


def _provided(table: MemoryTable) -> Provided:
    return Provided(
        schema=table.schema,
        rows=table.rows,
        nbytes=table.messages().nbytes,
        read=lambda first, rows: table.table(first=first, rows=rows),
    )


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _url(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://{_authority(host, port)}"
