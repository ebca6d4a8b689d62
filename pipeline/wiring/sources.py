"""A sync's Source, from its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from pipeline.config import BigQuerySource, Config, SyncConfig
from pipeline.ports import Source
from pipeline.source.bigquery import BigQuery
from pipeline.source.client import Connection
from pipeline.source.file import Files
from pipeline.source.query import JobSettings
from pipeline.source.table import BigQueryTable
from pipeline.wiring.identity import user_agent


def streams_of(config: Config, sync: SyncConfig) -> int:
    """Streams of a sync that are read at a time. Among several there is no order."""
    return 1 if sync.is_ordered else config.read.streams


def make_connection(settings: BigQuerySource, compression: str = "auto") -> Connection:
    """How to reach the BigQuery of a source; connects to nothing."""
    credentials = settings.credentials
    return Connection(
        project=settings.project,
        location=settings.location,
        credentials=credentials.get_secret_value() if credentials else None,
        impersonate=settings.impersonate,
        compression=compression,
        endpoint=settings.endpoint,
        storage_endpoint=settings.storage_endpoint,
        user_agent=user_agent(),
    )


@asynccontextmanager
async def open_source(
    config: Config, name: str, sync: SyncConfig, *, kept: bool = True
) -> AsyncIterator[Source]:
    """The Source of a sync, closed at the end of the block.

    kept: whether a later run may go on with the query of one that is stopped.
    """
    settings, where = config.sources[sync.source], f"sync {name}"
    source: Source
    if isinstance(settings, BigQuerySource):
        source = _bigquery(config, name, sync, settings, kept=kept)
    else:
        source = Files(config.resolve(settings.path), where=where)
    try:
        yield source
    finally:
        await source.close()


def _bigquery(
    config: Config, name: str, sync: SyncConfig, settings: BigQuerySource, *, kept: bool
) -> Source:
    where, compression = f"sync {name}", config.read.compression
    if compression == "auto" and config.spool.dir is not None:
        compression = "lz4"  # they are kept as they come
    connection = replace(
        make_connection(settings, compression),
        readers=streams_of(config, sync) * len(sync.destinations),
        read_deadline=config.read.retry_deadline,
    )
    shards = 1 if sync.is_ordered else config.shard.of
    jobs = JobSettings(
        maximum_bytes_billed=settings.maximum_bytes_billed,
        labels={"retl_sync": name} | settings.labels,
        priority=settings.priority,
        timeout=settings.query_timeout,
        parameters=[given.as_parameter(key) for key, given in sync.parameters.items()],
    )
    if sync.query is None and sync.table is not None:
        return BigQueryTable(
            connection,
            where=where,
            table=sync.table,
            row_restriction=sync.row_restriction or "",
            fields=tuple(sync.selected_fields),
            snapshot_time=sync.snapshot_time,
            variables=sync.variables,
            lookback=int(sync.lookback),
            jobs=jobs,
            streams=streams_of(config, sync),
            shards=shards,
        )
    return BigQuery(
        connection,
        where=where,
        query=sync.query or "",
        variables=sync.variables,
        lookback=int(sync.lookback),
        jobs=jobs,
        streams=streams_of(config, sync),
        shards=shards,
        kept=kept,
    )
