"""The local Storage Read API, read by the real clients: the sync one, and bare grpc.aio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from google.api_core import exceptions
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcTransport,
)

from pipeline.local.bigquery.errors import LocalError, access_denied, not_found
from pipeline.local.bigquery.memory import MemoryTable
from pipeline.local.bigquery.read_api import ReadApi, start
from pipeline.local.bigquery.sessions import Sessions
from pipeline.local.faults import FaultPlan

TABLE = "projects/p/datasets/d/tables/{}"
READ_ROWS = "/google.cloud.bigquery.storage.v1.BigQueryRead/ReadRows"
ROWS = 10_000
DATETIME = {"ARROW:extension:name": "google:sqlType:datetime"}
Codec = types.ArrowSerializationOptions.CompressionCodec

NUMBERS = pa.table(
    [
        pa.array(range(ROWS), pa.int64()),
        pa.array([f"row {number}" for number in range(ROWS)]),
        pa.array([1_700_000_000_000_000 + number for number in range(ROWS)], pa.timestamp("us")),
    ],
    schema=pa.schema(
        [
            pa.field("n", pa.int64()),
            pa.field("s", pa.string()),
            pa.field("d", pa.timestamp("us"), metadata=DATETIME),
        ]
    ),
)


class Tables:
    """A warehouse of the same shape as the real one."""

    def __init__(self) -> None:
        self.data = {"numbers": NUMBERS, "empty": NUMBERS.slice(0, 0)}

    def table(
        self,
        project: str,
        dataset: str,
        table: str,
        *,
        row_restriction: str = "",
        selected_fields: Sequence[str] = (),
        snapshot_time: float | None = None,
    ) -> pa.RecordBatchReader:
        if dataset == "forbidden":
            raise access_denied(project, dataset, table)
        if table not in self.data:
            raise not_found(project, dataset, table)
        data = self.data[table]
        if row_restriction == "n < 5":
            data = data.filter(pc.less(data["n"], 5))
        elif row_restriction:
            raise LocalError("invalidQuery", "Unrecognized name: x at [1:1]")
        if selected_fields:
            data = data.select([name for name in data.column_names if name in selected_fields])
        return data.to_reader(max_chunksize=500)


@dataclass(slots=True)
class Local:
    """A running server, with the real clients on it."""

    port: int
    client: BigQueryReadClient
    channel: grpc.aio.Channel
    tables: Tables
    now: list[float] = field(default_factory=list)

    async def create(self, table: str = "numbers", **options: Any) -> types.ReadSession:
        session = types.ReadSession(
            table=table if "/" in table else TABLE.format(table),
            data_format=options.pop("data_format", types.DataFormat.ARROW),
            read_options=options.pop("read_options", None),
            trace_id=options.pop("trace_id", ""),
        )
        options = {"parent": "projects/p", "retry": None, **options}
        call = self.client.create_read_session
        return await asyncio.to_thread(call, read_session=session, **options)

    async def rows(self, session: types.ReadSession, stream: int = 0, offset: int = 0) -> pa.Table:
        def read() -> pa.Table:
            messages = list(self.client.read_rows(session.streams[stream].name, offset))
            schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
            return pa.Table.from_batches([batch_of(m, schema) for m in messages], schema)

        return await asyncio.to_thread(read)

    async def raw(
        self, name: str, offset: int = 0, metadata: tuple[tuple[str, str], ...] = ()
    ) -> list[types.ReadRowsResponse]:
        request = types.ReadRowsRequest(read_stream=name, offset=offset)
        call = self.channel.unary_stream(READ_ROWS)(
            types.ReadRowsRequest.serialize(request), metadata=metadata
        )
        return [types.ReadRowsResponse.deserialize(data) async for data in call]


def batch_of(message: types.ReadRowsResponse, schema: pa.Schema) -> pa.RecordBatch:
    buffer = pa.py_buffer(message.arrow_record_batch.serialized_record_batch)
    batch = pa.ipc.read_record_batch(buffer, schema)
    assert batch.num_rows == message.row_count == message.arrow_record_batch.row_count
    return batch


async def until_error(call: Any) -> tuple[int, grpc.aio.AioRpcError]:
    """How many messages still came, and the error that ended the call."""
    messages = 0
    try:
        while await call.read() is not grpc.aio.EOF:
            messages += 1
    except grpc.aio.AioRpcError as error:
        return messages, error
    raise AssertionError("the call ended well")


@asynccontextmanager
async def serving(
    *, faults: str = "", seconds: float = 3600.0, **options: Any
) -> AsyncIterator[Local]:
    now = [1_700_000_000.0]
    tables = Tables()
    api = ReadApi(
        tables,
        faults=FaultPlan.parse(faults),
        sessions=Sessions(seconds=seconds, now=lambda: now[0]),
        message_rows=options.pop("message_rows", 1_000),
        **options,
    )
    server, port = await start(api)
    target = f"127.0.0.1:{port}"
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    channel = grpc.insecure_channel(target, options=unlimited)
    client = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
    async with grpc.aio.insecure_channel(target, options=unlimited) as bare:
        try:
            yield Local(port, client, bare, tables, now)
        finally:
            channel.close()
            await server.stop(None)
            api.close()


Serve = Callable[..., Awaitable[Local]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def started(**options: Any) -> Local:
            return await stack.enter_async_context(serving(**options))

        yield started


# ------------------------------------------------------------------------------- sessions


async def test_a_session_says_what_it_is(serve: Serve) -> None:
    local = await serve()
    session = await local.create(max_stream_count=3, trace_id="mine")
    assert session.name.startswith("projects/p/locations/us/sessions/")
    assert session.table == TABLE.format("numbers")
    assert session.trace_id == "mine"
    assert session.expire_time.timestamp() == local.now[0] + 3600
    assert session.data_format == types.DataFormat.ARROW
    assert session.estimated_row_count == ROWS
    assert session.estimated_total_bytes_scanned == pytest.approx(NUMBERS.nbytes, rel=0.1)
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    assert schema.equals(NUMBERS.schema, check_metadata=True)
    assert len(session.streams) == 3


@pytest.mark.parametrize("codec", list(Codec))
async def test_streams_hold_every_row_once_whatever_the_compression(
    serve: Serve, codec: Codec
) -> None:
    local = await serve()
    arrow = types.ArrowSerializationOptions(buffer_compression=codec)
    options = types.ReadSession.TableReadOptions(arrow_serialization_options=arrow)
    session = await local.create(max_stream_count=4, read_options=options)
    parts = [await local.rows(session, index) for index in range(4)]
    assert pa.concat_tables(parts).equals(NUMBERS)
    assert len({part.num_rows for part in parts}) > 1
    for index, part in enumerate(parts):  # the same on every read, also from the middle
        assert (await local.rows(session, index)).equals(part)
        assert (await local.rows(session, index, offset=1_234)).equals(part.slice(1_234))


@pytest.mark.filterwarnings(
    "ignore::PendingDeprecationWarning"
)  # its own decoding is on the way out
async def test_the_client_librarys_own_decoding(serve: Serve) -> None:
    local = await serve()
    session = await local.create(max_stream_count=1)

    def read() -> pa.Table:
        return local.client.read_rows(session.streams[0].name).to_arrow()

    assert (await asyncio.to_thread(read)).equals(NUMBERS)


async def test_the_async_client(serve: Serve) -> None:
    from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadAsyncClient
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
        BigQueryReadGrpcAsyncIOTransport,
    )

    local = await serve()
    client = BigQueryReadAsyncClient(
        transport=BigQueryReadGrpcAsyncIOTransport(channel=local.channel)
    )
    session = await client.create_read_session(
        parent="projects/p",
        read_session=types.ReadSession(
            table=TABLE.format("numbers"), data_format=types.DataFormat.ARROW
        ),
        max_stream_count=1,
    )
    messages = await client.read_rows(read_stream=session.streams[0].name)
    assert sum([message.row_count async for message in messages]) == ROWS


async def test_the_messages_of_a_stream(serve: Serve) -> None:
    local = await serve()
    session = await local.create(max_stream_count=1)
    messages = await local.raw(session.streams[0].name)
    assert len(messages) == 10
    assert max(message.row_count for message in messages) <= 1_000
    # The schema comes with the first message only, also when it isn't the stream's first.
    for received in (messages, await local.raw(session.streams[0].name, 4_500)):
        schemas = [bool(m.arrow_schema.serialized_schema) for m in received]
        assert schemas == [True] + [False] * (len(received) - 1)
    progress = [message.stats.progress for message in messages]
    assert progress[0].at_response_start == 0
    assert progress[-1].at_response_end == 1
    for before, after in pairwise(progress):
        assert before.at_response_end == after.at_response_start
    middle = (await local.raw(session.streams[0].name, 4_500))[0]
    assert middle.row_count == 500
    assert middle.stats.progress.at_response_start == pytest.approx(0.45)


async def test_large_rows_make_small_batches(serve: Serve) -> None:
    local = await serve(message_bytes=100_000, message_rows=1_000_000)
    local.tables.data["wide"] = pa.table({"s": ["x" * 10_000] * 100})
    session = await local.create("wide", max_stream_count=1)
    counts = [message.row_count for message in await local.raw(session.streams[0].name)]
    assert sum(counts) == 100
    assert max(counts) <= 10


async def test_an_offset_at_the_end_and_beyond(serve: Serve) -> None:
    local = await serve()
    session = await local.create(max_stream_count=1)
    name = session.streams[0].name
    assert (await local.rows(session, 0, ROWS)).num_rows == 0
    assert await local.raw(name, ROWS) == []
    assert (await local.rows(session, 0, ROWS - 1)).equals(NUMBERS.slice(ROWS - 1))
    with pytest.raises(grpc.aio.AioRpcError, match="offset 10001 has not been allocated") as caught:
        await local.raw(name, ROWS + 1)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_an_empty_table_has_a_schema_and_no_streams(serve: Serve) -> None:
    local = await serve()
    session = await local.create("empty", max_stream_count=4)
    assert list(session.streams) == []
    assert session.arrow_schema.serialized_schema
    assert session.estimated_row_count == 0


async def test_selected_fields_and_row_restriction(serve: Serve) -> None:
    local = await serve()
    options = types.ReadSession.TableReadOptions(selected_fields=["s"], row_restriction="n < 5")
    session = await local.create(read_options=options)
    assert (await local.rows(session)).equals(NUMBERS.select(["s"]).slice(0, 5))
    options = types.ReadSession.TableReadOptions(row_restriction="x > 1")
    with pytest.raises(exceptions.InvalidArgument, match="Unrecognized name: x"):
        await local.create(read_options=options)


async def test_a_snapshot_does_not_see_later_changes(serve: Serve) -> None:
    local = await serve()
    session = await local.create(max_stream_count=1)
    local.tables.data["numbers"] = NUMBERS.slice(0, 3)
    assert (await local.rows(session)).num_rows == ROWS


async def test_split(serve: Serve) -> None:
    local = await serve()
    session = await local.create(max_stream_count=1)
    split = local.client.split_read_stream
    request = types.SplitReadStreamRequest(name=session.streams[0].name, fraction=0.3)
    parts = await asyncio.to_thread(split, request)
    session.streams = [parts.primary_stream, parts.remainder_stream]
    tables = [await local.rows(session, 0), await local.rows(session, 1)]
    assert [table.num_rows for table in tables] == [3_000, 7_000]
    assert pa.concat_tables(tables).equals(NUMBERS)
    session = await local.create(read_options={"row_restriction": "n < 5"})
    request = types.SplitReadStreamRequest(name=session.streams[0].name, fraction=0.5)
    assert not (await asyncio.to_thread(split, request)).primary_stream.name


# ------------------------------------------------------------------------------- refusals

REFUSED = {
    "no such table": ({"table": "nothing"}, exceptions.NotFound, "Not found: Table p:d.nothing"),
    "forbidden dataset": (
        {"table": "projects/p/datasets/forbidden/tables/t"},
        exceptions.PermissionDenied,
        "Access Denied: Table p:forbidden.t",
    ),
    "forbidden project": (
        {"parent": "projects/forbidden"},
        exceptions.PermissionDenied,
        "does not have 'bigquery.readsessions.create' permission for 'projects/forbidden'",
    ),
    "avro": (
        {"data_format": types.DataFormat.AVRO},
        exceptions.MethodNotImplemented,
        "AVRO; ask for ARROW",
    ),
    "no format": (
        {"data_format": types.DataFormat.DATA_FORMAT_UNSPECIFIED},
        exceptions.InvalidArgument,
        "data_format",
    ),
    "bad parent": ({"parent": "p"}, exceptions.InvalidArgument, "parent 'p' is not of the form"),
    "bad table": ({"table": "a/b"}, exceptions.InvalidArgument, "table 'a/b' is not of the form"),
    "bad counts": (
        {"max_stream_count": 1, "preferred": 2},
        exceptions.InvalidArgument,
        "max_stream_count",
    ),
    "sample": (
        {"read_options": {"sample_percentage": 5.0}},
        exceptions.MethodNotImplemented,
        "sample_percentage",
    ),
    "whole-message compression": (
        {"read_options": {"response_compression_codec": 2}},
        exceptions.MethodNotImplemented,
        "response_compression_codec",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_refusals_of_create_read_session(serve: Serve, case: str) -> None:
    options, error, words = REFUSED[case]
    options = dict(options)
    local = await serve()
    if "preferred" in options:
        request = types.CreateReadSessionRequest(
            parent="projects/p",
            read_session=types.ReadSession(
                table=TABLE.format("numbers"), data_format=types.DataFormat.ARROW
            ),
            max_stream_count=options["max_stream_count"],
            preferred_min_stream_count=options["preferred"],
        )
        with pytest.raises(error, match=words):
            await asyncio.to_thread(local.client.create_read_session, request, retry=None)
        return
    with pytest.raises(error, match=words):
        await local.create(**options)


async def test_an_unknown_stream(serve: Serve) -> None:
    local = await serve()
    name = "projects/p/locations/us/sessions/s/streams/t"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await local.raw(name)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    split = local.client.split_read_stream
    with pytest.raises(exceptions.NotFound):
        await asyncio.to_thread(split, {"name": name, "fraction": 0.5}, retry=None)


async def test_an_expired_session_also_in_mid_read(serve: Serve) -> None:
    # 10 messages of 800 kB: more than the windows of the connection take in one go.
    local = await serve(seconds=60, message_bytes=10**7)
    local.tables.data["big"] = pa.table({"s": ["x" * 800] * 40_000})
    session = await local.create("big", max_stream_count=1)
    request = types.ReadRowsRequest(read_stream=session.streams[0].name)
    call = local.channel.unary_stream(READ_ROWS)(types.ReadRowsRequest.serialize(request))
    await call.read()
    local.now[0] += 60
    _, error = await until_error(call)
    assert "session expired" in (error.details() or "")
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(grpc.aio.AioRpcError, match="session expired at 2023-11-14T22:14:20"):
        await local.raw(session.streams[0].name)


async def test_the_routing_header_is_checked_when_present(serve: Serve) -> None:
    local = await serve()
    session = await local.create(max_stream_count=1)
    name = session.streams[0].name
    key = "x-goog-request-params"
    for good in (f"read_stream={name}", f"read_stream={name.replace('/', '%2F')}", "other=1"):
        assert await local.raw(name, ROWS, ((key, good),)) == []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await local.raw(name, ROWS, ((key, "read_stream=projects%2Fx"),))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_snapshot_that_can_not_be_written_says_so(serve: Serve, tmp_path: Path) -> None:
    local = await serve(directory=tmp_path / "missing")
    with pytest.raises(exceptions.InternalServerError, match="snapshot can't be written"):
        await local.create()


async def test_garbage_is_refused_as_such(serve: Serve) -> None:
    local = await serve()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in local.channel.unary_stream(READ_ROWS)(b"\xff\xff\xff"):
            pass
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


# ------------------------------------------------------------------------------- faults


async def read_until_error(local: Local, name: str) -> tuple[int, grpc.aio.AioRpcError]:
    request = types.ReadRowsRequest.serialize(types.ReadRowsRequest(read_stream=name))
    return await until_error(local.channel.unary_stream(READ_ROWS)(request))


async def test_a_fault_in_mid_stream_and_a_resume_by_the_real_client(serve: Serve) -> None:
    plan = "- {on: read_rows, do: {error: UNAVAILABLE, after_messages: 3}}"
    local = await serve(faults=plan)
    session = await local.create(max_stream_count=1)
    assert (await local.rows(session)).equals(NUMBERS)
    local = await serve(faults=plan)
    session = await local.create(max_stream_count=1)
    messages, error = await read_until_error(local, session.streams[0].name)
    assert (messages, error.code()) == (3, grpc.StatusCode.UNAVAILABLE)


async def test_a_fault_after_more_messages_than_there_are_hits_the_end(serve: Serve) -> None:
    local = await serve(faults="- {on: read_rows, do: {error: INTERNAL, after_messages: 10}}")
    session = await local.create(max_stream_count=1)
    messages, error = await read_until_error(local, session.streams[0].name)
    assert (messages, error.code()) == (10, grpc.StatusCode.INTERNAL)


async def test_a_quota_fault_carries_its_retry_info(serve: Serve) -> None:
    local = await serve(
        faults="- {on: read_rows, do: {error: RESOURCE_EXHAUSTED, retry_after: 0.001}}\n"
        "- {on: create_read_session, do: {error: RESOURCE_EXHAUSTED, retry_after: 1.5}}"
    )
    with pytest.raises(exceptions.ResourceExhausted) as caught:
        await local.create(max_stream_count=1)
    assert caught.value.details[0].retry_delay.ToMilliseconds() == 1_500
    session = await local.create(max_stream_count=1)
    # The client library only goes on when it finds a RetryInfo.
    assert (await local.rows(session)).equals(NUMBERS)


async def test_a_reset_cuts_the_connection_and_the_next_one_works(serve: Serve) -> None:
    local = await serve(faults="- {on: read_rows, do: {reset: true, after_messages: 2}}")
    session = await local.create(max_stream_count=1)
    messages, error = await read_until_error(local, session.streams[0].name)
    assert messages <= 2
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "fault plan" not in (error.details() or "")  # it was the transport that failed
    assert sum(m.row_count for m in await local.raw(session.streams[0].name)) == ROWS


async def test_a_hang_ends_by_the_clients_patience(serve: Serve) -> None:
    local = await serve(faults="- {on: read_rows, do: {hang: true, after_messages: 1}}")
    session = await local.create(max_stream_count=1)
    request = types.ReadRowsRequest(read_stream=session.streams[0].name)
    call = local.channel.unary_stream(READ_ROWS)(
        types.ReadRowsRequest.serialize(request), timeout=0.3
    )
    assert await call.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_delay_only_delays(serve: Serve) -> None:
    local = await serve(faults="- {on: create_read_session, do: {delay: 0.05}}")
    started = time.monotonic()
    session = await local.create(max_stream_count=1)
    assert time.monotonic() - started >= 0.05
    assert (await local.rows(session)).num_rows == ROWS


# ------------------------------------------------------------------------------- synthetic


@pytest.mark.parametrize("codec", list(Codec))
async def test_a_synthetic_table_through_the_real_client(serve: Serve, codec: Codec) -> None:
    users = MemoryTable.users(20_000, streams=3)
    local = await serve(synthetic={("bench", "users"): users})
    arrow = types.ArrowSerializationOptions(buffer_compression=codec)
    session = await local.create(
        "projects/any/datasets/bench/tables/users",
        read_options=types.ReadSession.TableReadOptions(arrow_serialization_options=arrow),
    )
    parts = [await local.rows(session, index) for index in range(3)]
    assert pa.concat_tables(parts).equals(users.table())
    assert (await local.rows(session, 2, 777)).equals(parts[2].slice(777))
    session = await local.create(
        "projects/any/datasets/bench/tables/users",
        read_options=types.ReadSession.TableReadOptions(selected_fields=["ltv", "id"]),
    )
    assert (await local.rows(session, 0)).column_names == ["id", "ltv"]


async def test_a_synthetic_table_takes_no_restriction(serve: Serve) -> None:
    local = await serve(synthetic={("bench", "users"): MemoryTable.users(10)})
    with pytest.raises(exceptions.MethodNotImplemented, match="row_restriction"):
        await local.create(
            "projects/any/datasets/bench/tables/users",
            read_options=types.ReadSession.TableReadOptions(row_restriction="id = 1"),
        )
