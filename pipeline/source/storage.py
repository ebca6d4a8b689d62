"""The Storage Read API as the sources here use it: one channel, its sessions, their streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

from pipeline.model import Reading
from pipeline.source.client import Connection
from pipeline.source.frame import ArrowFrame
from pipeline.source.read import Selection, StreamReader, create_session

# Sessions live six hours by the service's own rule; its answer says when exactly.
# More streams than are read at a time, so that the last ones end close together.
_STREAMS_PER_READER = 4
_EVERYTHING = Selection()


class Storage:
    """Reads the tables of one source for one sync. where: for messages."""

    def __init__(self, connection: Connection, *, where: str) -> None:
        self._connection, self._where = connection, where
        self._channel: grpc.aio.Channel | None = None
        self._failed: list[grpc.aio.Channel] = []

    async def session(
        self, table: str, *, readers: int, selection: Selection = _EVERYTHING
    ) -> types.ReadSession:
        """A session on `projects/p/datasets/d/tables/t`, for so many readers; 1: one stream."""
        return await create_session(
            self._connection.sessions(self.channel()),
            project=self._connection.project,
            table=table,
            streams=1 if readers == 1 else readers * _STREAMS_PER_READER,
            compress=self._connection.compress,
            where=self._where,
            selection=selection,
        )

    def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[ArrowFrame, None]:
        """See `pipeline.ports.Source`."""
        return self.reader(reading).read(reading.streams[stream], stream, first)

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
