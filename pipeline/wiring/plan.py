"""What a sync's next run would cost and take, found out without sending anything.

A dry run is free. The sample and the count each run the query once, and are billed like a run; a
table that is read directly has its sample without one. No state is changed.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from secrets import token_hex

import pyarrow as pa

from pipeline.config import BigQuerySource, Config, SyncConfig
from pipeline.destination.file import File
from pipeline.model import Window
from pipeline.ports import Destination, Source
from pipeline.run.plan import LanePlan, Plan, Sample, cost, lane_plan, outlasting, sampled
from pipeline.send.limiter import Limiter
from pipeline.source.ordering import is_ordered
from pipeline.source.outlast import Pace
from pipeline.wiring.encoders import make_encoder
from pipeline.wiring.identity import sync_named
from pipeline.wiring.preview import preview_rows
from pipeline.wiring.routes import make_destination
from pipeline.wiring.sources import open_source
from pipeline.wiring.spooling import make_pace
from pipeline.wiring.state import next_window

# Seconds that a destination is taken to need for an answer, where nobody says otherwise.
LATENCY = 0.2


async def plan_sync(
    config: Config,
    name: str,
    *,
    sample: int = 100,
    count: bool = False,
    full: bool = False,
    latency: float = LATENCY,
) -> Plan:
    """What the next run of a sync would do.

    sample: how many rows to look at; 0 leaves the sample out. count: count all rows, by one
    more query. full: of everything instead of what changed. latency: seconds an answer takes.
    Raises ConfigError, SourceError, CredentialsError, StateError.
    """
    sync = sync_named(config, name)
    window = await asyncio.to_thread(next_window, config, name)
    if full:
        window = replace(window, start=0)
    queries = 0
    async with open_source(config, name, sync) as source:
        scan = await source.dry_run(window)
        sql = source.sql(window)
        table = None
        if sample:
            table = await source.preview(window, sample, f"plan-{name}-{token_hex(8)}")
            queries += sync.query is not None
        rows, known_by = await _rows(sync, source, window, table, sample)
    if count and sql and known_by in {"unknown", "estimate"}:
        rows, known_by = await _counted(config, name, sync, window, sql), "count"
        queries += 1
    lanes = tuple(
        lane_plan(
            destination.name,
            _pace(config, destination.name),
            _sampled(config, name, destination, window, table),
            rows,
            permits=config.send.most_in_flight,
            latency=0.0 if isinstance(destination, File) else latency,
        )
        for destination in (make_destination(config, target) for target in sync.destinations)
    )
    return Plan(
        sync=name,
        call=sync.call,
        sql=sql,
        window=window,
        bytes_processed=scan.bytes_processed,
        cost=_cost(config, sync, scan.bytes_processed),
        rows=rows,
        rows_known_by=known_by,
        queries=queries,
        lanes=lanes,
        notes=_notes(config, sync, sql, lanes),
    )


def _cost(config: Config, sync: SyncConfig, nbytes: int) -> float | None:
    """Of a query; what reads a table directly is priced otherwise, and files not at all."""
    settings = config.sources[sync.source]
    if sync.query is None or not isinstance(settings, BigQuerySource):
        return None
    return cost(nbytes, settings.price_per_tib)


async def _rows(
    sync: SyncConfig, source: Source, window: Window, table: pa.Table | None, sample: int
) -> tuple[int | None, str]:
    """How many rows there are, as far as that costs nothing more, and how it is known."""
    if table is not None and table.num_rows < sample:
        return table.num_rows, "sample"
    # A query would have to run. Files know their rows, and a table about: without a condition.
    if sync.query is None and not sync.row_restriction:
        reading = await source.start(window, "")
        return reading.rows, "source" if reading.rows_exact else "estimate"
    return None, "unknown"


async def _counted(config: Config, name: str, sync: SyncConfig, window: Window, sql: str) -> int:
    """COUNT over the sync's query, which passes the same checks as the query itself."""
    # A line of its own for the closing bracket: the query may end with a comment.
    query = f"SELECT COUNT(*) AS n FROM (\n{sql.rstrip().removesuffix(';')}\n)"  # noqa: S608 - the user's own query
    async with open_source(config, name, sync.model_copy(update={"query": query})) as source:
        table = await source.preview(window, 1, f"count-{name}-{token_hex(8)}")
    return int(table.column(0)[0].as_py())


def _sampled(
    config: Config, name: str, destination: Destination, window: Window, table: pa.Table | None
) -> Sample:
    if table is None:
        return Sample()
    encoder = make_encoder(config, name, destination, window, table.schema)
    return sampled(preview_rows(encoder, table, destination), destination.envelope.separator)


def _pace(config: Config, target: str) -> Pace:
    pace = make_pace(config, target)
    # A limit of rows makes requests smaller.
    most = Limiter(requests=pace.requests_per_second, rows=pace.rows_per_second).most_rows
    return pace if most is None else replace(pace, batch_rows=min(pace.batch_rows, most))


def _notes(
    config: Config, sync: SyncConfig, sql: str, lanes: tuple[LanePlan, ...]
) -> tuple[str, ...]:
    notes = []
    queried = isinstance(config.sources[sync.source], BigQuerySource)
    if queried and sync.query is None:
        notes.append(
            "A table that is read directly is billed by the Storage Read API's price and not by "
            "that of queries."
        )
    if sync.is_ordered:
        notes.append(
            "One stream is read at a time, and no user's rows leave before the answer to those "
            "before them: a user with many rows may take longer than the duration says."
        )
        if queried and not is_ordered(sql):
            notes.append(
                "`ordering: per_user` keeps the order in which BigQuery gives the rows, and "
                "without ORDER BY that is any order. Let a query say which."
            )
    if queried and config.spool.dir is None and (late := outlasting(lanes)):
        notes.append(
            f"Sending to {', '.join(late)} is likely to take longer than a read session lives "
            "(6 hours). Raise the rate limit, let the query give fewer rows, or set RETL_SPOOL_DIR."
        )
    return tuple(notes)
