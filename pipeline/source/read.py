"""Read sessions and streams of the BigQuery Storage Read API.

Rows come over grpc.aio as raw bytes: the official async client never goes on in mid-stream and
spends its time in wrappers. A broken stream is opened again at the row after the last one that
came; what has come is never asked for twice.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

import grpc
import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError
from google.api_core.gapic_v1.routing_header import to_grpc_metadata
from google.cloud.bigquery_storage_v1 import types
from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadAsyncClient
from google.protobuf.message import DecodeError

from pipeline.errors import ReadingExpired, ResultExpired, SourceError
from pipeline.model import Span
from pipeline.source.faults import MissingTable, retry_after, translated
from pipeline.source.frame import ArrowFrame, Decoder, cut
from pipeline.source.idle import Idle
from pipeline.source.patience import DEADLINE, Patience
from pipeline.source.streams import StreamCount

_READ_ROWS = "/google.cloud.bigquery.storage.v1.BigQueryRead/ReadRows"
# No message for this long, in seconds, is a dead stream; asking for it is what starts the clock,
# so that a slow destination, which does not ask, never trips it.
_IDLE = 120.0
# Creating a session, one try, in seconds. The library's own default is ten minutes.
_SESSION_TIMEOUT = 30.0
# A session is not asked for rows so long after its end, in seconds: our clock may be ahead.
_CLOCK_SKEW = 300.0

_Request = types.ReadRowsRequest.pb()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What of a table is read; by default all of it, as it is now.

    row_restriction: a condition in SQL. fields: columns, and fields of STRUCTs as `column.field`.
    """

    row_restriction: str = ""
    fields: tuple[str, ...] = ()
    snapshot_time: datetime | None = None


EVERYTHING = Selection()
"""Of a table."""


async def create_session(
    client: BigQueryReadAsyncClient,
    *,
    project: str,
    table: str,
    streams: StreamCount,
    compress: bool,
    where: str,
    selection: Selection = EVERYTHING,
    deadline: float = DEADLINE,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> types.ReadSession:
    """A session of so many streams on `table` (`projects/p/datasets/d/tables/t`).

    deadline: how long an outage may last, in seconds.
    """
    codecs = types.ArrowSerializationOptions.CompressionCodec
    codec = codecs.LZ4_FRAME if compress else codecs.COMPRESSION_UNSPECIFIED
    options = types.ReadSession.TableReadOptions(
        arrow_serialization_options=types.ArrowSerializationOptions(buffer_compression=codec),
        row_restriction=selection.row_restriction,
        selected_fields=selection.fields,
    )
    session = types.ReadSession(
        table=table,
        data_format=types.DataFormat.ARROW,
        read_options=options,
        table_modifiers=types.ReadSession.TableModifiers(snapshot_time=selection.snapshot_time),
    )
    patience = Patience(where, random.uniform, deadline=deadline)
    while True:
        try:
            with translated(where):
                try:
                    found = await client.create_read_session(
                        types.CreateReadSessionRequest(
                            parent=f"projects/{project}",
                            read_session=session,
                            max_stream_count=streams.most,
                            preferred_min_stream_count=streams.least,
                        ),
                        retry=None,
                        timeout=_SESSION_TIMEOUT,
                    )
                    break
                except GoogleAPICallError as error:
                    refusal = error.response
                    if not isinstance(refusal, grpc.aio.AioRpcError) or _is_missing(refusal):
                        raise
                    code, details = refusal.code(), refusal.details() or ""
                    wait = patience.failed(code, details, clock(), retry_after(refusal))
        except MissingTable as error:
            raise ResultExpired(f"{where}: the table or query's result is gone: {error}") from error
        await sleep(wait)
    # Under a restriction the estimate may be of the rows before it.
    if found.estimated_row_count and not found.streams and not selection.row_restriction:
        raise SourceError(
            f"{where}: BigQuery's read session has {found.estimated_row_count:,} rows and no "
            "streams to read them from. Run again."
        )
    return found


def row_count(session: types.ReadSession) -> int | None:
    """How many rows a session has; None when it does not say: 0 is also what is left out."""
    rows: int = session.estimated_row_count
    return rows if rows or not session.streams else None


def arranged(columns: Sequence[str], session: types.ReadSession) -> tuple[str, ...]:
    """These columns, of the result, if the session has just them in another order; else empty."""
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    differ = [*columns] != schema.names and sorted(columns) == sorted(schema.names)
    return tuple(columns) if differ else ()


def _is_missing(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.NOT_FOUND


class StreamReader:
    """Reads the streams of a session.

    headers: metadata of every call, beside the routing. expires: Unix seconds at which the
    session ends. renew: another channel for one that fell silent, or whose credentials were
    refused. idle: seconds. deadline: how long an outage may last, in seconds.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        schema: pa.Schema,
        *,
        where: str,
        headers: Sequence[tuple[str, str]] = (),
        expires: int | None = None,
        renew: Callable[[grpc.aio.Channel], grpc.aio.Channel] = lambda channel: channel,
        idle: float | None = None,
        deadline: float = DEADLINE,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._channel, self._renew, self._headers = channel, renew, headers
        self._schema, self._where, self._expires = schema, where, expires
        self._decoder = Decoder(schema, where)
        self._idle = _IDLE if idle is None else idle
        self._deadline = deadline
        self._now, self._clock, self._sleep, self._uniform = now, clock, sleep, uniform
        self.trouble = ""
        """What it waits out just now, for people; empty while rows come."""

    async def read(self, name: str, number: int, first: int) -> AsyncGenerator[ArrowFrame, None]:
        """Frames of the stream `name`, which is the run's stream `number`, from row `first`.

        Raises what `pipeline.ports.Source.read` raises.
        """
        at, patience = first, Patience(self._where, self._uniform, deadline=self._deadline)
        while True:
            idle = patience.silence(self._idle, self._clock())
            try:
                async with aclosing(self._read_once(name, number, at, idle)) as frames:
                    async for frame in frames:
                        at = frame.span.end
                        patience.progressed()
                        idle, self.trouble = self._idle, ""
                        yield frame
            except grpc.aio.AioRpcError as error:
                code, details, now = error.code(), error.details() or "", self._clock()
                wait, what = patience.failed(code, details, now, retry_after(error)), code.name
                if code is grpc.StatusCode.UNAUTHENTICATED:
                    self._channel = self._renew(self._channel)
            except TimeoutError:
                now = self._clock()
                wait, what = patience.idle(idle, now), "no message"
                self._channel = self._renew(self._channel)  # it may be the connection
            except DecodeError:
                now = self._clock()
                wait, what = patience.broken("no ReadRowsResponse", now), "a broken message"
            else:
                return
            self.trouble = f"reading again after {what}, for {patience.lasts(now):,.0f} s"
            await self._sleep(wait)

    async def _read_once(
        self, name: str, number: int, first: int, idle: float
    ) -> AsyncGenerator[ArrowFrame, None]:
        if self._expires is not None and self._now() > self._expires + _CLOCK_SKEW:
            raise ReadingExpired(f"{self._where}: the read session's time is over.")
        request = _Request(read_stream=name, offset=first).SerializeToString()
        # Bytes in, bytes out: what the official client calls, without its wrappers.
        call = self._channel.unary_stream(_READ_ROWS)(
            request, metadata=(to_grpc_metadata((("read_stream", name),)), *self._headers)
        )
        waits = Idle()
        try:
            while (raw := await waits.wait(call.read(), idle)) is not grpc.aio.EOF:
                rows, message = cut(raw)
                if message.arrow_schema.serialized_schema:
                    self._check_schema(message.arrow_schema.serialized_schema)
                if message.row_count:
                    span = Span(stream=number, first=first, rows=message.row_count)
                    first, idle = span.end, self._idle
                    frame = ArrowFrame(rows, len(raw), span, self._decoder)
                    del raw, rows, message  # the frame alone holds them, until it is decoded
                    yield frame
                elif rows:
                    raise DecodeError("rows without their number")
        finally:
            waits.close()
            call.cancel()

    def _check_schema(self, serialized: bytes) -> None:
        """A stream's first message carries its schema: rows of another one can't be read."""
        try:
            schema = pa.ipc.read_schema(pa.py_buffer(serialized))
        except (pa.ArrowException, OSError) as error:
            raise DecodeError("no schema") from error
        if schema.names != self._schema.names or schema.types != self._schema.types:
            raise ReadingExpired(
                f"{self._where}: the columns of a read stream are not those of its session any "
                f"more: {', '.join(schema.names)}."
            )
