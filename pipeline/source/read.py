"""Read sessions and streams of the BigQuery Storage Read API.

Rows come over grpc.aio as raw bytes: the official async client never goes on in mid-stream and
spends its time in wrappers. A broken stream is opened again at the row after the last one that
came; what has come is never asked for twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import grpc
import pyarrow as pa
from google.api_core.exceptions import Aborted, DeadlineExceeded, ServiceUnavailable, Unknown
from google.api_core.retry import if_exception_type
from google.api_core.retry_async import AsyncRetry
from google.cloud.bigquery_storage_v1 import types
from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadAsyncClient

from pipeline.errors import ReadingExpired, SourceError
from pipeline.model import Span
from pipeline.source.faults import MissingTable, from_status, translated

_READ_ROWS = "/google.cloud.bigquery.storage.v1.BigQueryRead/ReadRows"
# No message for this long, in seconds, is a dead stream; asking for it is what starts the clock,
# so that a slow destination, which does not ask, never trips it.
_IDLE = 120.0
# Creating a session: one try, and all tries, in seconds. The library's own default is ten minutes.
_SESSION_TIMEOUT, _SESSION_PATIENCE = 30.0, 60.0
_SESSION_RETRY = AsyncRetry(
    predicate=if_exception_type(ServiceUnavailable, DeadlineExceeded, Aborted, Unknown),
    initial=0.2,
    maximum=5.0,
    timeout=_SESSION_PATIENCE,
)
_FIRST_WAIT, _LAST_WAIT = 0.2, 20.0
_MOST_FUTILE = 8
_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
# INTERNAL passes only where it speaks of the connection. Source: Google's own clients.
_PASSING_INTERNAL = (
    "rst_stream",
    "rst stream",
    "eos on data frame",
    "http/2 error code: internal_error",
    "connection closed with unknown cause",
)

_Response = types.ReadRowsResponse.pb()
_Request = types.ReadRowsRequest.pb()


class ArrowFrame:
    """One ReadRows message: a serialized RecordBatch."""

    __slots__ = ("_message", "_schema", "_where", "nbytes", "span")

    def __init__(
        self, message: object, nbytes: int, span: Span, schema: pa.Schema, where: str
    ) -> None:
        self._message, self._schema, self._where = message, schema, where
        self.nbytes, self.span = nbytes, span

    def record_batch(self) -> pa.RecordBatch:
        """See `pipeline.ports.Frame`."""
        data = pa.py_buffer(self._message.arrow_record_batch.serialized_record_batch)  # type: ignore[attr-defined]  # a generated message
        try:
            batch = pa.ipc.read_record_batch(data, self._schema)
        except (pa.ArrowInvalid, OSError) as error:
            raise SourceError(f"{self._where}: a message of the read stream is broken.") from error
        if batch.num_rows != self.span.rows:
            raise SourceError(
                f"{self._where}: a message of the read stream says {self.span.rows} rows and holds "
                f"{batch.num_rows}. Run again; if it stays, report it to Google."
            )
        return batch


async def create_session(
    client: BigQueryReadAsyncClient,
    *,
    project: str,
    table: str,
    streams: int,
    compress: bool,
    where: str,
) -> types.ReadSession:
    """A session of at most `streams` streams on `table` (`projects/p/datasets/d/tables/t`)."""
    codecs = types.ArrowSerializationOptions.CompressionCodec
    codec = codecs.LZ4_FRAME if compress else codecs.COMPRESSION_UNSPECIFIED
    options = types.ReadSession.TableReadOptions(
        arrow_serialization_options=types.ArrowSerializationOptions(buffer_compression=codec)
    )
    session = types.ReadSession(
        table=table, data_format=types.DataFormat.ARROW, read_options=options
    )
    try:
        with translated(where):
            return await client.create_read_session(
                parent=f"projects/{project}",
                read_session=session,
                max_stream_count=streams,
                retry=_SESSION_RETRY,
                timeout=_SESSION_TIMEOUT,
            )
    except MissingTable as error:
        raise ReadingExpired(f"{where}: the query's result is gone.") from error


class StreamReader:
    """Reads the streams of a session."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        schema: pa.Schema,
        *,
        where: str,
        idle: float = _IDLE,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._call = channel.unary_stream(
            _READ_ROWS, request_serializer=None, response_deserializer=None
        )
        self._schema, self._where = schema, where
        self._idle, self._sleep, self._uniform = idle, sleep, uniform

    async def read(self, name: str, number: int, first: int) -> AsyncGenerator[ArrowFrame, None]:
        """Frames of the stream `name`, which is the run's stream `number`, from row `first`."""
        at, futile = first, 0
        while True:
            try:
                async with aclosing(self._read_once(name, number, at)) as frames:
                    async for frame in frames:
                        at, futile = frame.span.end, 0
                        yield frame
            except grpc.aio.AioRpcError as error:
                futile += 1
                self._check(error, futile)
            except TimeoutError:
                futile += 1
                if futile > _MOST_FUTILE:
                    details = f"no message for {self._idle:g} s"
                    code = grpc.StatusCode.DEADLINE_EXCEEDED
                    raise from_status(self._where, code, details) from None
            else:
                return
            top = min(_LAST_WAIT, _FIRST_WAIT * 2.0**futile)
            await self._sleep(self._uniform(0.0, top))

    async def _read_once(
        self, name: str, number: int, first: int
    ) -> AsyncGenerator[ArrowFrame, None]:
        request = _Request(read_stream=name, offset=first).SerializeToString()
        routing = (("x-goog-request-params", f"read_stream={name}"),)
        call = self._call(request, metadata=routing)
        try:
            while True:
                async with asyncio.timeout(self._idle):
                    raw = await call.read()
                if raw is grpc.aio.EOF:
                    return
                message = _Response.FromString(raw)
                if message.row_count:
                    span = Span(stream=number, first=first, rows=message.row_count)
                    first = span.end
                    yield ArrowFrame(message, len(raw), span, self._schema, self._where)
        finally:
            call.cancel()

    def _check(self, error: grpc.aio.AioRpcError, futile: int) -> None:
        """Return if it is worth another try; else raise."""
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.NOT_FOUND or (
            code is grpc.StatusCode.FAILED_PRECONDITION and "expired" in details.lower()
        ):
            raise ReadingExpired(f"{self._where}: the read session is gone: {details}") from None
        passing = code in _PASSING or (
            code is grpc.StatusCode.INTERNAL
            and any(sign in details.lower() for sign in _PASSING_INTERNAL)
        )
        if not passing or futile > _MOST_FUTILE:
            raise from_status(self._where, code, details) from None
