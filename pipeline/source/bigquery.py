"""A BigQuery query as a Source: render, dry run, query job, read session, streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType

import pyarrow as pa

from pipeline.model import Reading, Window
from pipeline.ports import DryRun
from pipeline.source.client import Connection
from pipeline.source.frame import ArrowFrame
from pipeline.source.job import QueryResult
from pipeline.source.lexical import as_subquery
from pipeline.source.ordering import is_ordered
from pipeline.source.query import JobSettings, QueryJobs
from pipeline.source.read import arranged, row_count
from pipeline.source.storage import Storage
from pipeline.source.streams import IN_ORDER, StreamCount, stream_count
from pipeline.source.template import render
from pipeline.source.threads import in_daemon

_NONE: Mapping[str, str] = MappingProxyType({})
# How long a stop waits for the cancelling of a job that nobody will look for again, in seconds.
_CANCELLING = 5.0


class BigQuery:
    """A `Source` for the query of one sync.

    jobs: of its query jobs. variables: the sync's own. streams: how many are read at a time, by
    each of so many shards.
    kept: whether a later run may go on with the query of one that is stopped; if not, stopping
    cancels it. where: for messages.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        where: str,
        query: str,
        lookback: int,
        jobs: JobSettings,
        streams: int,
        shards: int = 1,
        variables: Mapping[str, str] = _NONE,
        kept: bool = True,
    ) -> None:
        self._query, self._lookback, self._variables = query, lookback, variables
        self._streams, self._kept = stream_count(streams, shards), kept
        self._jobs = QueryJobs(connection.jobs, where=where, settings=jobs)
        self._storage = Storage(connection, where=where)
        self._step = ""

    @property
    def activity(self) -> str:
        """See `pipeline.ports.Source`."""
        return self._jobs.activity or self._step or self._storage.activity

    def sql(self, window: Window) -> str:
        """The query, rendered for a window."""
        return render(
            self._query,
            last_sync_time=window.start,
            lookback=self._lookback,
            variables=self._variables,
        )

    async def dry_run(self, window: Window) -> DryRun:
        """See `pipeline.ports.Source`."""
        return await in_daemon(self._jobs.dry_run, self.sql(window))

    async def start(self, window: Window, job_key: str) -> Reading:
        """See `pipeline.ports.Source`."""
        sql = self.sql(window)
        # Several streams would lose the order that the query asks for.
        streams = IN_ORDER if is_ordered(sql) else self._streams
        return await self._start(sql, window, job_key, streams=streams, kept=self._kept)

    async def preview(self, window: Window, rows: int, job_key: str) -> pa.Table:
        """See `pipeline.ports.Source`."""
        sql = f"SELECT * FROM {as_subquery(self.sql(window))} LIMIT {rows}"  # noqa: S608 - the user's own query
        self._storage.hurry()
        reading = await self._start(sql, window, job_key, streams=IN_ORDER, kept=False)
        schema = pa.ipc.read_schema(pa.py_buffer(reading.schema))
        batches = [
            frame.record_batch()
            for stream in range(len(reading.streams))
            async for frame in self.read(reading, stream, 0)
        ]
        return pa.Table.from_batches(batches, schema=schema)

    def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[ArrowFrame, None]:
        """See `pipeline.ports.Source`."""
        return self._storage.read(reading, stream, first)

    def settled(self, reading: Reading, checkpoints: Mapping[int, int]) -> None:
        """Nothing is kept of rows."""

    async def close(self) -> None:
        """See `pipeline.ports.Source`."""
        await self._storage.close()
        await in_daemon(self._jobs.close)

    async def _start(
        self, sql: str, window: Window, job_key: str, *, streams: StreamCount, kept: bool
    ) -> Reading:
        try:
            self._step = "checking the query"
            scan = await self.dry_run(window)
            result = await self._run(sql, job_key, kept=kept)
            self._step = "opening the result"
            session = await self._storage.session(result.table, streams=streams)
        finally:
            self._step = ""
        return Reading(
            streams=tuple(stream.name for stream in session.streams),
            schema=session.arrow_schema.serialized_schema,
            query_started=result.started,
            rows=row_count(session),  # exact, of a query's result
            expires=int(session.expire_time.timestamp()),
            bytes_processed=result.bytes_processed,
            bytes_billed=result.bytes_billed,
            slot_ms=result.slot_ms,
            cache_hit=result.cache_hit,
            estimated_bytes=session.estimated_total_bytes_scanned or None,
            columns=arranged(scan.columns, session),
            details={"job": result.job_id, "table": result.table, "session": session.name},
        )

    async def _run(self, sql: str, job_key: str, *, kept: bool) -> QueryResult:
        """The query's result. Cancelled, it leaves the job to be found again, or cancels it."""
        work = asyncio.ensure_future(in_daemon(self._jobs.run, sql, job_key, kept=kept))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._jobs.abandon()
            if not kept:
                await asyncio.wait({work}, timeout=_CANCELLING)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise
