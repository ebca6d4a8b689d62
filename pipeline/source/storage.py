"""The Storage Read API as the sources here use it: one channel, its sessions, their streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

from pipeline.model import Reading
from pipeline.source.client import Connection
from pipeline.source.frame import ArrowFrame
from pipeline.source.read import EVERYTHING, Selection, StreamReader, create_session
from pipeline.source.streams import StreamCount

# How long an outage may last where somebody waits for the answer, in seconds.
_HURRY = 30.0


class Storage:
    """Reads the tables of one source for one sync. where: for messages."""

    def __init__(self, connection: Connection, *, where: str) -> None:
        self._connection, self._where = connection, where
        self._channel: grpc.aio.Channel | None = None
        self._failed: list[grpc.aio.Channel] = []
        self._readers: set[StreamReader] = set()
        self._deadline = connection.read_deadline

    @property
    def activity(self) -> str:
        """What a read waits out just now, for people; else empty."""
        return next((reader.trouble for reader in self._readers if reader.trouble), "")

    def hurry(self) -> None:
        """Somebody waits for what is asked from here on: an outage ends it soon."""
        self._deadline = min(self._deadline, _HURRY)

    async def session(
        self, table: str, *, streams: StreamCount, selection: Selection = EVERYTHING
    ) -> types.ReadSession:
        """A session on `projects/p/datasets/d/tables/t`."""
        return await create_session(
            self._connection.sessions(self.channel()),
            project=self._connection.project,
            table=table,
            streams=streams,
            compress=self._connection.compress,
            where=self._where,
            selection=selection,
            deadline=self._deadline,
        )

    async def read(
        self, reading: Reading, stream: int, first: int
    ) -> AsyncGenerator[ArrowFrame, None]:
        """See `pipeline.ports.Source`.

        A stream may end early and not say so. Where no count of all rows can tell that, an end is
        believed when the stream ends at the same row twice.
        """
        counted = reading.rows is not None and reading.rows_exact
        reader, at, ends = self.reader(reading), first, 0
        self._readers.add(reader)
        try:
            while ends < (1 if counted else 2):
                ends += 1
                async with aclosing(reader.read(reading.streams[stream], stream, at)) as frames:
                    async for frame in frames:
                        at, ends = frame.span.end, 1
                        yield frame
        finally:
            self._readers.discard(reader)

    def reader(self, reading: Reading, *, idle: float | None = None) -> StreamReader:
        """Reads the streams of a reading. idle: seconds without a message; None: the usual."""
        return StreamReader(
            self.channel(),
            pa.ipc.read_schema(pa.py_buffer(reading.schema)),
            where=self._where,
            headers=self._connection.headers,
            expires=reading.expires,
            renew=self._renewed,
            idle=idle,
            deadline=self._deadline,
        )

    def channel(self) -> grpc.aio.Channel:
        """Made on first use: grpc.aio ties a channel to the loop that runs."""
        if self._channel is None:
            self._channel = self._connection.channel()
        return self._channel

    def _renewed(self, failed: grpc.aio.Channel) -> grpc.aio.Channel:
        """A channel of its own connection and credentials, for one that failed.

        Other streams may still read from that one: it is closed at the end.
        """
        if self._channel is failed:
            self._failed.append(failed)
            self._channel = None
        return self.channel()

    async def close(self) -> None:
        """Release the channels; idempotent."""
        opened = [*self._failed, *([] if self._channel is None else [self._channel])]
        self._channel, self._failed = None, []
        for channel in opened:
            await channel.close()
