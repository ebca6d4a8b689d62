"""The ways to read a stream that take turns in benchmarks/read.py.

Each reads one stream whole, over a channel that is open already, and says how many rows came; the
drains, who don't look into a message, say it by the bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager

import grpc
import grpc.aio
import pyarrow as pa
import uvloop
from _read_source import Canned, Served, configured, opened
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcTransport,
)

from pipeline.config import BigQuerySource
from pipeline.ports import Source
from pipeline.source.client import Connection
from pipeline.wiring.sources import make_connection

READER, FRAMES, OFFICIAL = "reader", "reader, frames", "official client"
AIO, SYNC, AIO_ARROW, SYNC_ARROW = "drain, aio", "drain, sync", "aio and Arrow", "sync and Arrow"

_READ_ROWS = "/google.cloud.bigquery.storage.v1.BigQueryRead/ReadRows"
_Request = types.ReadRowsRequest.pb()
# Of the official client's own channels; what it leaves out is gRPC's default.
_OFFICIAL_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
# As our own channel has it: see pipeline/source/client.py.
_SYNC_OPTIONS = (
    *_OFFICIAL_OPTIONS,
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4_000_000),
)

Way = Callable[[Canned, int], int]


class Ways:
    """All of them, over one server. Made by `open_ways`."""

    def __init__(
        self,
        runner: asyncio.Runner,
        source: Source,
        aio: grpc.aio.Channel,
        sync: grpc.Channel,
        client: BigQueryReadClient,
    ) -> None:
        self._runner, self._source = runner, source
        self._aio, self._client = aio.unary_stream(_READ_ROWS), client
        self._sync = sync.unary_stream(_READ_ROWS)

    def all(self) -> dict[str, Way]:
        """By name, in the order of their turns."""
        return {
            READER: self._reader,
            OFFICIAL: self._official,
            FRAMES: self._frames,
            AIO: lambda shape, messages: self._drain_aio(shape, messages, decode=False),
            SYNC: lambda shape, messages: self._drain_sync(shape, messages, decode=False),
            AIO_ARROW: lambda shape, messages: self._drain_aio(shape, messages, decode=True),
            SYNC_ARROW: lambda shape, messages: self._drain_sync(shape, messages, decode=True),
        }

    def _reader(self, shape: Canned, messages: int) -> int:
        async def read() -> int:
            rows = 0
            async with aclosing(self._source.read(shape.reading(1, messages), 0, 0)) as frames:
                async for frame in frames:
                    rows += frame.record_batch().num_rows
            return rows

        return self._runner.run(read())

    def _frames(self, shape: Canned, messages: int) -> int:
        async def read() -> int:
            rows = 0
            async with aclosing(self._source.read(shape.reading(1, messages), 0, 0)) as frames:
                async for frame in frames:
                    rows += frame.span.rows
            return rows

        return self._runner.run(read())

    def _official(self, shape: Canned, messages: int) -> int:
        rows = 0
        for message in self._client.read_rows(shape.stream(messages)):
            body = message._pb.arrow_record_batch.serialized_record_batch  # noqa: SLF001 - what makes it fast
            rows += pa.ipc.read_record_batch(pa.py_buffer(body), shape.schema).num_rows
        return rows

    def _drain_aio(self, shape: Canned, messages: int, *, decode: bool) -> int:
        async def drain() -> int:
            rows, call = 0, self._aio(_request(shape, messages))
            while (raw := await call.read()) is not grpc.aio.EOF:
                rows += _counted(raw, shape, decode=decode)
            return rows

        return self._runner.run(drain())

    def _drain_sync(self, shape: Canned, messages: int, *, decode: bool) -> int:
        call = self._sync(_request(shape, messages))
        return sum(_counted(raw, shape, decode=decode) for raw in call)


@contextmanager
def open_ways(served: Served) -> Iterator[Ways]:
    """Channels to the server and what is behind them, for the length of the block."""
    config = configured(served.target)
    settings = config.sources["canned"]
    assert isinstance(settings, BigQuerySource)  # noqa: S101 - it is our own configuration
    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        grpc.insecure_channel(served.target, options=_OFFICIAL_OPTIONS) as official,
        grpc.insecure_channel(served.target, options=_SYNC_OPTIONS) as sync,
    ):
        source = opened(config)
        aio = runner.run(_channel(make_connection(settings)))
        client = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=official))
        try:
            yield Ways(runner, runner.run(source.__aenter__()), aio, sync, client)
        finally:
            runner.run(source.__aexit__(None, None, None))
            runner.run(aio.close())


async def _channel(connection: Connection) -> grpc.aio.Channel:
    """Made while the loop runs, to which grpc.aio ties it."""
    return connection.channel()


def _request(shape: Canned, messages: int) -> bytes:
    request = _Request(read_stream=shape.stream(messages), offset=0)
    data: bytes = request.SerializeToString()
    return data


def _counted(raw: bytes, shape: Canned, *, decode: bool) -> int:
    """The message's rows, by its size or by decoding a body that was at hand before."""
    if decode:
        return int(pa.ipc.read_record_batch(pa.py_buffer(shape.body), shape.schema).num_rows)
    return shape.rows if len(raw) == shape.nbytes else 0
