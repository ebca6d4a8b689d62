"""A Storage Read API that replays one ready message per shape: the least a server can do.

    python benchmarks/_read_server.py --message-bytes 1000000

Runs in a process of its own. Its first line of output says where it listens and what it has. A
stream is named SHAPE/MESSAGES/ANYTHING and has so many messages, all of them the same bytes.
Messages are written by protobuf's own serializer, in the order of its fields: the progress comes
before the rows, which therefore begin at an odd place in the message.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pyarrow as pa
import uvloop
from google.cloud.bigquery_storage_v1 import types

from pipeline.local.bigquery.memory import MemoryTable
from pipeline.local.bigquery.messages import serialize

SERVICE = "google.cloud.bigquery.storage.v1.BigQueryRead"
WIDE_COLUMNS = 120
_SAMPLE = 1_000  # rows by which the size of a row is measured
_UNLIMITED = -1

_Request = types.ReadRowsRequest.pb()
_Response = types.ReadRowsResponse.pb()


@dataclass(frozen=True, slots=True)
class Shape:
    """One message, as it goes out: so many rows of `schema`; body: the RecordBatch in it."""

    schema: pa.Schema
    rows: int
    body: bytes
    message: bytes

    def described(self) -> dict[str, Any]:
        """For the first line of output."""
        return {
            "schema": b64encode(self.schema.serialize().to_pybytes()).decode(),
            "body": b64encode(self.body).decode(),
            "rows": self.rows,
            "bytes": len(self.message),
            "columns": len(self.schema),
        }


def shapes(message_bytes: int) -> dict[str, Shape]:
    """Messages of about so many bytes, before compression."""
    return {
        "narrow": _shape(_narrow, message_bytes, None),
        "wide": _shape(_wide, message_bytes, None),
        "users": _shape(_users, message_bytes, None),
        "users, LZ4": _shape(_users, message_bytes, "lz4"),
    }


def _shape(make: Callable[[int], pa.Table], message_bytes: int, codec: str | None) -> Shape:
    rows = max(1, round(message_bytes * _SAMPLE / make(_SAMPLE).nbytes))
    [batch] = make(rows).combine_chunks().to_batches()
    body = serialize(batch, codec)
    message = _Response(row_count=rows)
    message.arrow_record_batch.serialized_record_batch = body
    message.stats.progress.at_response_start, message.stats.progress.at_response_end = 0.25, 0.75
    return Shape(batch.schema, rows, body, message.SerializeToString())


def _users(rows: int) -> pa.Table:
    return MemoryTable.users(rows).table()


def _narrow(rows: int) -> pa.Table:
    return _users(rows).select(["id", "email"])


def _wide(rows: int) -> pa.Table:
    """Columns of six types in turn; one in seven has nulls."""
    random = np.random.default_rng(1)
    numbers = random.integers(0, 10**12, rows)
    makers: list[Callable[[], pa.Array]] = [
        lambda: pa.array(numbers),
        lambda: pa.array(numbers % 10_000).cast(pa.string()),
        lambda: pa.array(random.random(rows)),
        lambda: pa.array(random.random(rows) < 0.5),
        lambda: pa.array(numbers * 1_000).cast(pa.timestamp("us", "UTC")),
        lambda: pa.array(numbers % 10**9).cast(pa.decimal128(38, 9)),
    ]
    columns = {}
    for index in range(WIDE_COLUMNS):
        column = makers[index % len(makers)]()
        if index % 7 == 0:
            column = column.take(pa.array(np.arange(rows), mask=random.random(rows) < 0.3))
        columns[f"column_{index:03}"] = column
    return pa.table(columns)


async def serve(message_bytes: int) -> None:
    """Until told to end."""
    known = shapes(message_bytes)

    async def read_rows(data: bytes, _context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        request = _Request.FromString(data)
        name, messages, _ = request.read_stream.split("/")
        shape = known[name]
        skip, within = divmod(request.offset, shape.rows)
        if within:
            raise ValueError("messages are replayed whole")
        for _ in range(int(messages) - skip):
            yield shape.message

    server = grpc.aio.server(options=[("grpc.max_send_message_length", _UNLIMITED)])
    handler = grpc.unary_stream_rpc_method_handler(read_rows)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"ReadRows": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    described = {name: shape.described() for name, shape in known.items()}
    print(json.dumps({"target": f"127.0.0.1:{port}", "shapes": described}), flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(0)


def main() -> None:
    """Serve on the first core, and leave the last to the client."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--message-bytes", type=int, default=1_000_000)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    uvloop.run(serve(arguments.message_bytes))


if __name__ == "__main__":
    main()
