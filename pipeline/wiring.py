"""Configuration to real objects: the only room that names adapters."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from secrets import token_hex

import pyarrow as pa

from pipeline.checkpoint.ledger import Ledger
from pipeline.checkpoint.scratch import ScratchStore
from pipeline.checkpoint.store import SqlStore
from pipeline.config import (
    BigQuerySource,
    Config,
    CustomerioDestination,
    FileDestination,
    SyncConfig,
)
from pipeline.destination.customerio import Customerio
from pipeline.destination.file import File
from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import ColumnRule, Rules
from pipeline.errors import ConfigError
from pipeline.events import Event
from pipeline.model import Span, Window
from pipeline.ports import Destination, Observer, RunStore, Source, Store, Transport
from pipeline.run.engine import RunParts, execute
from pipeline.run.lane import LaneLimits, Route
from pipeline.run.report import Preview, PreviewRow, RunReport
from pipeline.send.file_transport import FileTransport
from pipeline.send.limiter import Limiter
from pipeline.send.retry import RetryPolicy
from pipeline.send.sender import Sender
from pipeline.send.transport import HttpTransport
from pipeline.source.bigquery import BigQuery
from pipeline.source.client import Connection
from pipeline.source.file import Files

# What a run does not depend on: changing it lets an open run go on.
_FREE_TO_CHANGE = {"description", "tags", "max_rejected", "query_file"}


def _unheard(_event: Event) -> None:
    """The observer of nobody."""


async def run_sync(
    config: Config,
    name: str,
    *,
    full: bool = False,
    dry_run: Path | None = None,
    observer: Observer = _unheard,
    stop: asyncio.Event | None = None,
) -> RunReport:
    """Run a sync once. What goes wrong in the run is in the report, not raised.

    full: everything instead of what changed. dry_run: payloads go to this file, one per line,
    instead of to the destinations, and the state is left alone. observer: hears every event.
    stop: once set, the run drains and ends as interrupted.
    Raises ConfigError for an unknown sync, StateError when the state can't be opened.
    """
    sync = _sync(config, name)
    async with AsyncExitStack() as stack:
        store: RunStore
        if dry_run is not None:
            store = ScratchStore(await asyncio.to_thread(_next_window, config, name))
        else:
            store = stack.enter_context(closing(await asyncio.to_thread(open_store, config)))
        source = await stack.enter_async_context(_source(config, name, sync))
        routes = [
            await stack.enter_async_context(_route(config, name, target, dry_run, observer))
            for target in (sync.destinations if dry_run is None else sync.destinations[:1])
        ]
        parts = RunParts(
            sync=name,
            fingerprint=_fingerprint(config, sync),
            full=full,
            source=source,
            routes=routes,
            encoder=lambda route, window, schema: _encoder(
                config, name, route.destination, window, schema
            ),
            ledger=Ledger,
            store=store,
            limits=LaneLimits(
                buffer_bytes=config.send.buffer_bytes,
                streams=config.read.streams,
                drain=config.drain,
                tolerates=sync.tolerates,
            ),
            threads=config.read.threads or os.cpu_count() or 1,
            observer=observer,
        )
        return await execute(parts, stop or asyncio.Event())


async def preview_sync(config: Config, name: str, *, rows: int = 10, full: bool = False) -> Preview:
    """The first rows of a sync's query, and the JSON that would be sent. Sends nothing.

    full: of everything instead of what changed.
    Raises ConfigError, SourceError, CredentialsError, StateError.
    """
    sync = _sync(config, name)
    window = await asyncio.to_thread(_next_window, config, name)
    if full:
        window = replace(window, start=0)
    async with _source(config, name, sync) as source:
        scan = await source.dry_run(window)
        table = await source.preview(window, rows, f"preview-{name}-{token_hex(8)}")
        destination = _destination(config, sync.destinations[0])
        return Preview(
            sync=name,
            call=sync.call,
            sql=source.sql(window),
            window=window,
            bytes_processed=scan.bytes_processed,
            table=table,
            rows=_preview_rows(
                _encoder(config, name, destination, window, table.schema), table, destination
            ),
        )


def open_store(config: Config) -> Store:
    """The state. Blocking. Raises StateError when it can't be read and written."""
    holder = f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"
    return SqlStore(config.state_url, holder=holder, now=time.time)


def _next_window(config: Config, name: str) -> Window:
    """The window that the next run would get; looking makes no state where there is none."""
    if not config.state_path.exists():
        return Window(start=0, sequence=1)
    with closing(open_store(config)) as store:
        return store.window(name)


def user_agent() -> str:
    """What we tell servers we are."""
    try:
        return f"bigquery-reverse-etl/{version('bigquery-reverse-etl')}"
    except PackageNotFoundError:  # run from a source tree that was not installed
        return "bigquery-reverse-etl"


def _sync(config: Config, name: str) -> SyncConfig:
    if name not in config.syncs:
        known = ", ".join(config.syncs)
        raise ConfigError(f"There is no sync {name}. There are: {known}.")
    return config.syncs[name]


@asynccontextmanager
async def _source(config: Config, name: str, sync: SyncConfig) -> AsyncIterator[Source]:
    settings, where = config.sources[sync.source], f"sync {name}"
    source: Source
    if isinstance(settings, BigQuerySource):
        credentials = settings.credentials
        connection = Connection(
            project=settings.project,
            location=settings.location,
            credentials=credentials.get_secret_value() if credentials else None,
            endpoint=settings.endpoint,
            storage_endpoint=settings.storage_endpoint,
            user_agent=user_agent(),
        )
        source = BigQuery(
            connection,
            where=where,
            query=sync.query or "",
            lookback=int(sync.lookback),
            maximum_bytes_billed=settings.maximum_bytes_billed,
            labels={"retl_sync": name} | settings.labels,
            streams=config.read.streams,
        )
    else:
        source = Files(config.resolve(settings.path), where=where)
    try:
        yield source
    finally:
        await source.close()


@asynccontextmanager
async def _route(
    config: Config, name: str, target: str, dry_run: Path | None, observer: Observer
) -> AsyncIterator[Route]:
    """A destination with its own transport, pace and permits."""
    send = config.send
    destination = _destination(config, target)
    settings = config.destinations[target]
    transport: Transport
    if dry_run is not None:
        destination = File(name=target, limits=destination.limits)
        transport = FileTransport(dry_run, append=False)
        await transport.open()  # a run of no rows leaves no rows of the last one
    elif isinstance(settings, FileDestination):
        transport = FileTransport(Path(config.resolve(settings.path)), append=True)
    else:
        transport = HttpTransport(
            connections=send.concurrency,
            timeout=send.timeout,
            connect_timeout=send.connect_timeout,
            user_agent=user_agent(),
        )
    allowed = None if dry_run is not None else destination.limits.requests_per_second
    rate = send.rate_limit
    sender = Sender(
        sync=name,
        destination=destination,
        transport=transport,
        limiter=Limiter(
            requests=rate.requests_per_second or allowed,
            rows=rate.rows_per_second,
            burst=rate.burst,
        ),
        retry=RetryPolicy(deadline=send.retry_deadline),
        concurrency=send.concurrency,
        observer=observer,
    )
    try:
        yield Route(destination=destination, deliverer=sender)
    finally:
        await transport.close()


def _destination(config: Config, target: str) -> Destination:
    settings = config.destinations[target]
    if isinstance(settings, CustomerioDestination):
        return Customerio(
            name=target,
            api_key=settings.api_key.get_secret_value(),
            region=settings.region,
            endpoint=settings.endpoint,
            encoding="gzip" if config.send.compression == "gzip" else "identity",
        )
    return File(name=target)


def _encoder(
    config: Config, name: str, destination: Destination, window: Window, schema: pa.Schema
) -> CallEncoder:
    sync = config.syncs[name]
    return CallEncoder(
        sync=name,
        call=sync.call,
        window=window,
        schema=schema,
        rules=Rules(
            columns={
                column: ColumnRule(to=rule.to, form=rule.form) if rule else None
                for column, rule in sync.columns.items()
            },
            json_columns=sync.json_columns,
            constants=sync.constants,
            times=sync.times,
            omit_nulls=sync.nulls == "omit",
            trusted_json=isinstance(config.sources[sync.source], BigQuerySource),
        ),
        separator=destination.envelope.separator,
        payload_bytes=destination.limits.payload_bytes,
        id_bytes=destination.limits.id_bytes,
    )


def _preview_rows(
    encoder: CallEncoder, table: pa.Table, destination: Destination
) -> tuple[PreviewRow, ...]:
    rows: dict[int, PreviewRow] = {}
    first, now = 0, time.time()
    for batch in table.to_batches():
        span = Span(stream=0, first=first, rows=batch.num_rows)
        payloads = encoder.encode(batch, span)
        for index in range(len(payloads)):
            start, stop = payloads.offsets[index], payloads.offsets[index + 1] - 1
            payload = bytes(payloads.data[start:stop])
            rows[payloads.row(index)] = PreviewRow(
                payload=payload, invalid=None, warnings=destination.warnings(payload, now)
            )
        for letter in payloads.invalid:
            rows[letter.row] = PreviewRow(payload=letter.payload, invalid=letter)
        first = span.end
    return tuple(rows[row] for row in sorted(rows))


def _fingerprint(config: Config, sync: SyncConfig) -> str:
    """What must stay the same for an open run to go on; no secret is part of it."""
    source = config.sources[sync.source]
    places = {"type", "region", "endpoint", "path"}
    text = json.dumps(
        {
            "destinations": {
                name: config.destinations[name].model_dump(mode="json", include=places)
                for name in sync.destinations
            },
            "sync": sync.model_dump(mode="json", exclude=_FREE_TO_CHANGE),
            "source": source.model_dump(mode="json", include={"type", "project", "path"}),
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()
