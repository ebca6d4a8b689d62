"""What goes over the wire when rows are read: metadata as the official client's, and every cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pyarrow as pa
import pytest
from google.api_core.exceptions import NotFound
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcTransport,
)
from read_server import read_server

from pipeline.errors import ResultExpired, SourceError
from pipeline.local.bigquery.proxy import GOAWAY
from pipeline.model import Reading
from pipeline.source.client import Connection
from pipeline.source.storage import Storage
from pipeline.source.streams import stream_count

NUMBERS = pa.table({"n": pa.array(range(3_000), pa.int64()), "s": ["x" * 20] * 3_000})
STREAM = "projects/p/locations/us/sessions/a b+c/streams/d=1&e"
TABLE = "projects/p/datasets/d/tables/t"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.source.patience._FIRST_WAIT", 0.02)


# ------------------------------------------------------------------------------- metadata

Met = dict[str, dict[str, str]]


@pytest.fixture
async def recorder() -> AsyncIterator[tuple[int, Met]]:
    """The port of a server that answers NOT_FOUND, and the metadata of its last calls."""
    met: Met = {}

    async def read(_request: bytes, context: Any) -> AsyncIterator[bytes]:
        met["ReadRows"] = dict(context.invocation_metadata())
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such stream")
        yield b""

    async def create(_request: bytes, context: Any) -> bytes:
        met["CreateReadSession"] = dict(context.invocation_metadata())
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such table")
        return b""

    handlers = {
        "ReadRows": grpc.unary_stream_rpc_method_handler(read),
        "CreateReadSession": grpc.unary_unary_rpc_method_handler(create),
    }
    service = "google.cloud.bigquery.storage.v1.BigQueryRead"
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port, met
    await server.stop(None)


async def test_metadata_is_what_the_official_client_sends(recorder: tuple[int, Met]) -> None:
    port, met = recorder

    def official() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            client = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
            with pytest.raises(NotFound):
                next(iter(client.read_rows(STREAM, retry=None)))
            with pytest.raises(NotFound):
                client.create_read_session(
                    parent="projects/p", read_session=types.ReadSession(table=TABLE), retry=None
                )

    await asyncio.to_thread(official)
    theirs = dict(met)
    connection = Connection(
        project="p", storage_endpoint=f"127.0.0.1:{port}", user_agent="bigquery-reverse-etl/1.2"
    )
    storage = Storage(connection, where="sync users")
    schema = NUMBERS.schema.serialize().to_pybytes()
    with pytest.raises(SourceError):
        await anext(storage.read(Reading(streams=(STREAM,), schema=schema, query_started=0), 0, 0))
    with pytest.raises(ResultExpired):
        await storage.session(TABLE, streams=stream_count(2))
    await storage.close()

    assert met.keys() == theirs.keys() == {"ReadRows", "CreateReadSession"}
    for call, sent in met.items():
        expected = theirs[call]
        assert sent["x-goog-request-params"] == expected["x-goog-request-params"]
        agent, _, client = sent["x-goog-api-client"].partition(" ")
        assert agent == "bigquery-reverse-etl/1.2"
        assert client == expected["x-goog-api-client"]
        # gRPC's own, which names the asyncio API, after ours.
        assert sent["user-agent"].startswith("bigquery-reverse-etl/1.2 grpc-python")
        assert expected.keys() == sent.keys()
    assert met["ReadRows"]["x-goog-request-params"].endswith("a+b%2Bc/streams/d%3D1%26e")


# ------------------------------------------------------------------------------- connections


@pytest.mark.slow
async def test_a_connection_cut_at_any_byte_costs_no_row_and_repeats_none() -> None:
    # One connection after another is reset, each at another byte of the second message: heads of
    # HTTP/2 frames, lengths of messages, rows. gRPC connects again at once only to a server that
    # answered, so the first bytes, its settings, are left alone.
    message = 28_000
    cuts = [message + step for step in (*range(12), *range(12, 4_000, 97))]
    plan = "\n".join(
        f"- {{on: connection, after: {number}, do: {{reset: true, after_bytes: {cut}}}}}"
        for number, cut in enumerate(cuts)
    )
    async with read_server(NUMBERS, faults=plan, message_rows=500) as served:
        while not all(served.plan.fired()):
            reading = await served.reading(readers=1)
            assert await served.rows(reading) == [*range(3_000)]
        assert served.proxy is not None
        assert served.proxy.connections >= len(cuts)


async def test_goaway_moves_what_begins_to_another_connection() -> None:
    plan = "- {on: connection, do: {goaway: true, after_bytes: 60000}}"
    async with read_server(NUMBERS, faults=plan, message_rows=500) as served:
        reading = await served.reading(readers=1)
        assert await served.rows(reading) == [*range(3_000)]
        assert await served.rows(reading) == [*range(3_000)]
        assert served.proxy is not None
        assert served.proxy.connections == 2
    assert bytes.fromhex("000008 07 00 00000000 7fffffff 00000000") == GOAWAY


async def test_a_slow_connection_is_waited_for_though_no_message_is_whole_in_time() -> None:
    # 88 kB at 200 kB/s is twice as long as a message may take at first.
    plan = "- {on: connection, do: {bytes_per_second: 200000, after_bytes: 3000}}"
    async with read_server(NUMBERS, faults=plan, message_rows=3_000) as served:
        reading = await served.reading(readers=1)
        reader = served.storage.reader(reading, idle=0.2)
        frames = [frame async for frame in reader.read(reading.streams[0], 0, 0)]
    assert [frame.span.rows for frame in frames] == [3_000]
