"""A Storage Read API in memory, at the seam of a gRPC channel: no socket, no thread, no waiting.

Streams are runs of messages; each call may meet one fault. A session that is over says so as
BigQuery does. What the reader waits for, is noted instead of waited for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from pipeline.local.bigquery.damage import garbled, truncated
from pipeline.local.bigquery.messages import serialize
from pipeline.local.bigquery.wire import rows_response

SCHEMA = pa.schema([("userId", pa.string()), ("x", pa.int64())])
_Request = types.ReadRowsRequest.pb()


@dataclass(frozen=True)
class Trouble:
    """What one call meets after `after` messages.

    kind: a gRPC status by name, or truncated, garbled, uncounted, ended, silent, reordered.
    """

    kind: str
    after: int = 0
    details: str = ""
    retry_after: float | None = None


def refusal(code: str, details: str = "", retry_after: float | None = None) -> grpc.aio.AioRpcError:
    status, trailer = grpc.StatusCode[code], grpc.aio.Metadata()
    if retry_after is not None:
        info, detail = error_details_pb2.RetryInfo(), any_pb2.Any()
        info.retry_delay.FromNanoseconds(int(retry_after * 1e9))
        detail.Pack(info)
        known = status_pb2.Status(code=status.value[0], message=details, details=[detail])
        trailer.add("grpc-status-details-bin", known.SerializeToString())
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), trailer, details or code)


@dataclass
class FakeReadApi:
    """streams: rows of each; message: rows of a message. troubles: of the next calls, in turn."""

    streams: Sequence[int]
    message: int = 5
    troubles: deque[Trouble] = field(default_factory=deque)
    calls: list[tuple[str, int]] = field(default_factory=list)
    metadata: list[tuple[tuple[str, str], ...]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    session: int = 1
    open_calls: int = 0

    def names(self) -> tuple[str, ...]:
        return tuple(f"s/{self.session}/{number}" for number in range(len(self.streams)))

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    def clock(self) -> float:
        """The seconds that were waited so far: nothing else takes time."""
        return sum(self.waits)

    def unary_stream(self, path: str) -> _Method:
        assert path == "/google.cloud.bigquery.storage.v1.BigQueryRead/ReadRows"
        return _Method(self)

    def batch(self, stream: int, first: int, rows: int) -> pa.RecordBatch:
        numbers = range(first, first + rows)
        ids = [f"{stream}-{number}" for number in numbers]
        return pa.record_batch(
            [pa.array(ids, pa.string()), pa.array(numbers, pa.int64())], schema=SCHEMA
        )


class _Method:
    def __init__(self, api: FakeReadApi) -> None:
        self._api = api

    def __call__(self, request: bytes, *, metadata: tuple[tuple[str, str], ...] = ()) -> _Call:
        read = _Request.FromString(request)
        self._api.calls.append((read.read_stream, read.offset))
        self._api.metadata.append(metadata)
        troubles = self._api.troubles
        return _Call(
            self._api, read.read_stream, read.offset, troubles.popleft() if troubles else None
        )


class _Call:
    def __init__(self, api: FakeReadApi, name: str, at: int, trouble: Trouble | None) -> None:
        self._api, self._at, self._trouble, self._sent = api, at, trouble, 0
        _, session, stream = name.split("/")
        self._session, self._stream = int(session), int(stream)
        api.open_calls += 1
        self._open = True

    async def read(self) -> object:
        await asyncio.sleep(0)
        api, rows = self._api, self._api.streams[self._stream]
        if self._session != api.session:
            raise refusal("FAILED_PRECONDITION", "session expired at 2026-11-24T12:00:00+00:00")
        if self._at > rows:
            raise refusal("FAILED_PRECONDITION", f"offset {self._at} has not been allocated yet")
        kind = self._meet()
        if self._at == rows or kind == "ended":
            return grpc.aio.EOF
        size = min(self._api.message, rows - self._at)
        pieces: tuple[bytes | memoryview, ...] = (
            serialize(api.batch(self._stream, self._at, size), None),
        )
        schema = SCHEMA if kind != "reordered" else pa.schema(list(SCHEMA)[::-1])
        answer = rows_response(
            garbled(pieces) if kind == "garbled" else pieces,
            rows=0 if kind == "uncounted" else size,
            progress=(0.0, 1.0),
            schema=b"" if self._sent else schema.serialize().to_pybytes(),
        )
        self._at, self._sent = self._at + size, self._sent + 1
        return truncated(answer) if kind == "truncated" else answer

    def _meet(self) -> str | None:
        """The kind of wrong answer that is due now; statuses are raised."""
        trouble = self._trouble
        if trouble is None or self._sent < trouble.after:
            return None
        self._trouble = None
        if trouble.kind == "silent":
            raise TimeoutError
        if trouble.kind.isupper():
            raise refusal(trouble.kind, trouble.details, trouble.retry_after)
        return trouble.kind

    def cancel(self) -> None:
        if self._open:
            self._open = False
            self._api.open_calls -= 1
