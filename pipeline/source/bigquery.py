"""BigQuery as a Source: render, dry run, query job, read session, streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc
import pyarrow as pa

from pipeline.model import Reading, Window
from pipeline.ports import DryRun, Frame
from pipeline.source.client import Connection
from pipeline.source.query import QueryJobs
from pipeline.source.read import StreamReader, create_session
from pipeline.source.template import render
from pipeline.source.threads import in_daemon

# Sessions live six hours by the service's own rule; its answer says when exactly.
# More streams than are read at a time, so that the last ones end close together.
_STREAMS_PER_READER = 4


class BigQuery:
    """A `Source` for the query of one sync.

    streams: how many are read at a time. labels: of the query jobs. where: for messages.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        where: str,
        query: str,
        lookback: int,
        maximum_bytes_billed: int,
        labels: dict[str, str],
        streams: int,
    ) -> None:
        self._connection, self._where, self._streams = connection, where, streams
        self._query, self._lookback = query, lookback
        self._jobs = QueryJobs(
            connection.jobs, where=where, maximum_bytes_billed=maximum_bytes_billed, labels=labels
        )
        self._channel: grpc.aio.Channel | None = None

    def sql(self, window: Window) -> str:
        """The query, rendered for a window."""
        return render(self._query, last_sync_time=window.start, lookback=self._lookback)

    async def dry_run(self, window: Window) -> DryRun:
        """See `pipeline.ports.Source`."""
        return await in_daemon(self._jobs.dry_run, self.sql(window))

    async def start(self, window: Window, job_key: str) -> Reading:
        """See `pipeline.ports.Source`."""
        await self.dry_run(window)
        return await self._start(self.sql(window), job_key, self._streams * _STREAMS_PER_READER)

    async def preview(self, window: Window, rows: int, job_key: str) -> pa.Table:
        """See `pipeline.ports.Source`."""
        await self.dry_run(window)
        # A line of its own for the closing bracket: the query may end with a comment.
        inner = self.sql(window).rstrip().removesuffix(";")
        sql = f"SELECT * FROM (\n{inner}\n) LIMIT {rows}"  # noqa: S608 - the user's own query
        reading = await self._start(sql, job_key, 1)
        schema = pa.ipc.read_schema(pa.py_buffer(reading.schema))
        batches = [
            frame.record_batch()
            for stream in range(len(reading.streams))
            async for frame in self.read(reading, stream, 0)
        ]
        return pa.Table.from_batches(batches, schema=schema)

    def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[Frame, None]:
        """See `pipeline.ports.Source`."""
        schema = pa.ipc.read_schema(pa.py_buffer(reading.schema))
        reader = StreamReader(self._opened(), schema, where=self._where)
        return reader.read(reading.streams[stream], stream, first)

    async def close(self) -> None:
        """See `pipeline.ports.Source`."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None
        await in_daemon(self._jobs.close)

    async def _start(self, sql: str, job_key: str, streams: int) -> Reading:
        try:
            result = await in_daemon(self._jobs.run, sql, job_key)
        except asyncio.CancelledError:
            self._jobs.abandon()
            raise
        session = await create_session(
            self._connection.sessions(self._opened()),
            project=self._connection.project,
            table=result.table,
            streams=streams,
            compress=self._connection.compress,
            where=self._where,
        )
        return Reading(
            streams=tuple(stream.name for stream in session.streams),
            schema=session.arrow_schema.serialized_schema,
            query_started=result.started,
            rows=session.estimated_row_count,
            expires=int(session.expire_time.timestamp()),
            bytes_processed=result.bytes_processed,
            bytes_billed=result.bytes_billed,
            details={"job": result.job_id, "table": result.table, "session": session.name},
        )

    def _opened(self) -> grpc.aio.Channel:
        # Made on first use: grpc.aio ties a channel to the loop that runs.
        if self._channel is None:
            self._channel = self._connection.channel()
        return self._channel
