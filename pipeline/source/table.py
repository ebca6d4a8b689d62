"""A BigQuery table as a Source, read without a query job.

A dry run of the query that would say the same checks the condition and the guard, costs nothing,
and tells BigQuery's time: `query_started` is the second at which it was made, before the session
took its snapshot of the table. So no change falls between two windows; one that comes between dry
run and snapshot is read now and again next time. This machine's clock is never asked.
A new session has another snapshot, so a lost one is a lost result: the window is read anew.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from types import MappingProxyType

import pyarrow as pa

from pipeline.errors import ConfigError, ReadingExpired, ResultExpired, SourceError
from pipeline.model import Reading, Window
from pipeline.ports import DryRun
from pipeline.source.client import Connection
from pipeline.source.frame import ArrowFrame
from pipeline.source.query import Checked, JobSettings, QueryJobs
from pipeline.source.read import Selection, row_count
from pipeline.source.storage import Storage
from pipeline.source.streams import IN_ORDER, StreamCount, stream_count
from pipeline.source.template import render
from pipeline.source.threads import in_daemon

_NONE: Mapping[str, str] = MappingProxyType({})
# What the Storage Read API does not read:
# https://cloud.google.com/bigquery/docs/reference/storage#limitations
_VIEWS = {"VIEW": "a view", "MATERIALIZED_VIEW": "a materialized view"}


class BigQueryTable:
    """A `Source` for the table of one sync.

    table: `dataset.table`, or with its project before. fields: none: all. variables: the sync's
    own. jobs: the guard of its dry run. streams: how many are read at a time, by each of so many
    shards. where: for messages.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        where: str,
        table: str,
        lookback: int,
        jobs: JobSettings,
        streams: int,
        shards: int = 1,
        row_restriction: str = "",
        fields: tuple[str, ...] = (),
        snapshot_time: datetime | None = None,
        variables: Mapping[str, str] = _NONE,
    ) -> None:
        self._where, self._fields = where, fields
        self._streams = stream_count(streams, shards)
        self._lookback, self._variables = lookback, variables
        self._restriction, self._snapshot = row_restriction, snapshot_time
        project, dataset, name = f"{connection.project}.{table}".rsplit(".", 2)
        if "." in table.rsplit(".", 1)[0]:
            project = table.rsplit(".", 2)[0]
        self._table = f"{project}.{dataset}.{name}"
        self._path = f"projects/{project}/datasets/{dataset}/tables/{name}"
        self._jobs = QueryJobs(connection.jobs, where=where, settings=jobs)
        self._storage = Storage(connection, where=where)
        self._step = ""

    @property
    def activity(self) -> str:
        """See `pipeline.ports.Source`."""
        return self._step or self._storage.activity

    def sql(self, window: Window) -> str:
        """The query that would give the same rows."""
        columns = ", ".join(self._fields) or "*"
        condition = self._condition(window)
        where = f" WHERE\n{condition}" if condition else ""
        return f"SELECT {columns} FROM `{self._table}`{where}"  # noqa: S608 - never run

    async def dry_run(self, window: Window) -> DryRun:
        """See `pipeline.ports.Source`."""
        return (await self._check(window)).dry_run

    async def start(self, window: Window, job_key: str) -> Reading:  # noqa: ARG002 - there is no job
        """See `pipeline.ports.Source`."""
        return await self._start(window, streams=self._streams)

    async def preview(self, window: Window, rows: int, job_key: str) -> pa.Table:  # noqa: ARG002 - there is no job
        """See `pipeline.ports.Source`. Reads no more than the first messages."""
        self._storage.hurry()
        reading = await self._start(window, streams=IN_ORDER)
        batches: list[pa.RecordBatch] = []
        for stream in range(len(reading.streams)):
            async with aclosing(self.read(reading, stream, 0)) as frames:
                async for frame in frames:
                    batches.append(frame.record_batch())
                    if frame.span.end >= rows:
                        break
        schema = pa.ipc.read_schema(pa.py_buffer(reading.schema))
        return pa.Table.from_batches(batches, schema=schema).slice(0, rows)

    async def read(
        self, reading: Reading, stream: int, first: int
    ) -> AsyncGenerator[ArrowFrame, None]:
        """See `pipeline.ports.Source`."""
        try:
            async with aclosing(self._storage.read(reading, stream, first)) as frames:
                async for frame in frames:
                    yield frame
        except ResultExpired:
            raise
        except ReadingExpired as expired:
            raise ResultExpired(f"{expired} The table has to be read anew.") from expired

    def settled(self, reading: Reading, checkpoints: Mapping[int, int]) -> None:
        """Nothing is kept of rows."""

    async def close(self) -> None:
        """See `pipeline.ports.Source`."""
        await self._storage.close()
        await in_daemon(self._jobs.close)

    def _condition(self, window: Window) -> str:
        return render(
            self._restriction,
            last_sync_time=window.start,
            lookback=self._lookback,
            variables=self._variables,
        ).strip()

    async def _check(self, window: Window) -> Checked:
        kind = await in_daemon(self._jobs.kind_of, self._table)
        if kind in _VIEWS:
            raise ConfigError(
                f"{self._where}: `table` names {_VIEWS[kind]}, which only a query can read. Write "
                f"`query` instead, with a SELECT from {self._table}."
            )
        return await in_daemon(self._jobs.check, self.sql(window), "reading the table")

    async def _start(self, window: Window, *, streams: StreamCount) -> Reading:
        try:
            self._step = "checking the table"
            checked = await self._check(window)
            if checked.at is None:
                raise SourceError(f"{self._where}: BigQuery did not tell its time. Run again.")
            self._step = "opening the table"
            session = await self._storage.session(
                self._path,
                streams=streams,
                selection=Selection(
                    row_restriction=self._condition(window),
                    fields=self._fields,
                    snapshot_time=self._snapshot,
                ),
            )
        finally:
            self._step = ""
        as_of = int(self._snapshot.timestamp()) if self._snapshot else checked.at
        return Reading(
            streams=tuple(stream.name for stream in session.streams),
            schema=session.arrow_schema.serialized_schema,
            query_started=min(as_of, checked.at),
            rows=row_count(session),
            rows_exact=False,
            expires=int(session.expire_time.timestamp()),
            bytes_processed=checked.dry_run.bytes_processed,
            estimated_bytes=session.estimated_total_bytes_scanned or None,
            details={"table": self._path, "session": session.name},
        )
