"""What a sync's next run would cost and take, found out without sending anything.

A dry run is free. The sample and the count each run the query once, and are billed like a run; a
table that is read directly has its sample without one. No state is changed.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from secrets import token_hex

from pipeline.config import BigQuerySource, Config, SyncConfig
from pipeline.destination.file import File
from pipeline.errors import PipelineError
from pipeline.model import Window
from pipeline.ports import Source
from pipeline.run.plan import LanePlan, Plan, Sample, cost, lane_plan, outlasting, sampled
from pipeline.send.limiter import Limiter
from pipeline.source.lexical import as_subquery
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
    What fails after the dry run is the Plan's `error`, beside all that is known without it.
    Raises ConfigError, SourceError, CredentialsError, StateError when not even that is known.
    """
    sync = sync_named(config, name)
    window = await asyncio.to_thread(next_window, config, name)
    if full:
        window = replace(window, start=0)
    async with open_source(config, name, sync) as source:
        scan = await source.dry_run(window)
        look = _Look(config, name, sync, source, window)
        error = await look.take(sample, count=count)
    lanes = tuple(
        lane_plan(
            destination.name,
            _pace(config, destination.name),
            look.samples.get(destination.name, Sample()),
            look.rows,
            permits=config.send.most_in_flight,
            latency=0.0 if isinstance(destination, File) else latency,
        )
        for destination in look.destinations
    )
    return Plan(
        sync=name,
        call=sync.call,
        sql=look.sql,
        window=window,
        bytes_processed=scan.bytes_processed,
        cost=_cost(config, sync, scan.bytes_processed),
        rows=look.rows,
        rows_known_by=look.known_by,
        queries=look.queries,
        lanes=lanes,
        notes=_notes(config, sync, look.sql, lanes),
        error=error,
    )


class _Look:
    """What is found out about a sync's rows; what was found stays when a later step fails.

    queries: how many were started. rows, known_by: as in a Plan. samples: by destination.
    """

    def __init__(
        self, config: Config, name: str, sync: SyncConfig, source: Source, window: Window
    ) -> None:
        self._config, self._name, self._sync = config, name, sync
        self._source, self._window = source, window
        self.sql = source.sql(window)
        self.destinations = [make_destination(config, target) for target in sync.destinations]
        self.queries = 0
        self.rows: int | None = None
        self.known_by = "unknown"
        self.samples: dict[str, Sample] = {}

    async def take(self, sample: int, *, count: bool) -> PipelineError | None:
        """Look; what ended it early, if something did."""
        try:
            await self._count_free()
            if sample:
                await self._sample(sample)
            if count and self.sql and self.known_by in {"unknown", "estimate"}:
                await self._count()
        except PipelineError as error:
            return error
        return None

    async def _count_free(self) -> None:
        """Files know their rows, and a table about: without a condition. A query has to run."""
        if self._sync.query is None and not self._sync.row_restriction:
            reading = await self._source.start(self._window, "")
            self.rows = reading.rows
            self.known_by = "source" if reading.rows_exact else "estimate"

    async def _sample(self, sample: int) -> None:
        self.queries += self._sync.query is not None
        key = f"plan-{self._name}-{token_hex(8)}"
        table = await self._source.preview(self._window, sample, key)
        if table.num_rows < sample:
            self.rows, self.known_by = table.num_rows, "sample"
        for destination in self.destinations:
            encoder = make_encoder(
                self._config, self._name, destination, self._window, table.schema
            )
            rows = preview_rows(encoder, table, destination)
            self.samples[destination.name] = sampled(rows, destination.envelope.separator)

    async def _count(self) -> None:
        """COUNT over the sync's query, which passes the same checks as the query itself."""
        query = f"SELECT COUNT(*) AS n FROM {as_subquery(self.sql)}"  # noqa: S608 - the user's own query
        sync = self._sync.model_copy(update={"query": query})
        self.queries += 1
        async with open_source(self._config, self._name, sync) as source:
            key = f"count-{self._name}-{token_hex(8)}"
            table = await source.preview(self._window, 1, key)
        self.rows, self.known_by = int(table.column(0)[0].as_py()), "count"


def _cost(config: Config, sync: SyncConfig, nbytes: int) -> float | None:
    """Of a query; what reads a table directly is priced otherwise, and files not at all."""
    settings = config.sources[sync.source]
    if sync.query is None or not isinstance(settings, BigQuerySource):
        return None
    return cost(nbytes, settings.price_per_tib)


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
