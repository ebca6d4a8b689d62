"""Answers of the local Storage Read API that look well and are not, as the wire shows them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pyarrow as pa
import pytest
from google.cloud.bigquery_storage_v1 import types
from google.protobuf.message import DecodeError
from read_server import TABLE, Served, read_server

from pipeline.errors import ReadingExpired, ResultExpired, SourceError
from pipeline.model import Reading
from pipeline.source.streams import IN_ORDER

NUMBERS = pa.table({"n": pa.array(range(1_000), pa.int64()), "s": ["x"] * 1_000})
READ_ROWS = "/google.cloud.bigquery.storage.v1.BigQueryRead/ReadRows"


async def messages(served: Served, reading: Reading, stream: int = 0) -> AsyncIterator[bytes]:
    request = types.ReadRowsRequest(read_stream=reading.streams[stream])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        async for raw in channel.unary_stream(READ_ROWS)(types.ReadRowsRequest.serialize(request)):
            yield raw


async def rows(served: Served, reading: Reading, stream: int = 0) -> list[int | str]:
    """Rows of each message, or what is wrong with it."""
    schema, found = pa.ipc.read_schema(pa.py_buffer(reading.schema)), list[int | str]()
    async for raw in messages(served, reading, stream):
        try:
            message = types.ReadRowsResponse.deserialize(raw)
            data = message.arrow_record_batch.serialized_record_batch
            found.append(pa.ipc.read_record_batch(pa.py_buffer(data), schema).num_rows)
        except DecodeError:
            found.append("truncated")
        except (pa.ArrowException, OSError):
            found.append("garbled")
    return found


@pytest.mark.parametrize(
    ("wrong", "after", "expected"),
    [
        ("truncated", 0, ["truncated", 100, 100]),
        ("truncated", 2, [100, 100, "truncated"]),
        ("garbled", 1, [100, "garbled", 100]),
        ("ended", 0, []),
        ("ended", 2, [100, 100]),
    ],
)
async def test_wrong_messages(wrong: str, after: int, expected: list[int | str]) -> None:
    plan = f"- {{on: read_rows, do: {{wrong: {wrong}, after_messages: {after}}}}}"
    async with read_server(NUMBERS.slice(0, 300), faults=plan, message_rows=100) as served:
        reading = await served.reading(readers=1)
        assert await rows(served, reading) == expected
        assert await rows(served, reading) == [100, 100, 100]  # the next call is well again


async def test_a_schema_that_is_not_the_sessions_comes_with_the_first_message() -> None:
    plan = "- {on: read_rows, do: {wrong: reordered}}"
    async with read_server(NUMBERS, faults=plan) as served:
        reading = await served.reading(readers=1)
        first = types.ReadRowsResponse.deserialize(await anext(messages(served, reading)))
        schema = pa.ipc.read_schema(pa.py_buffer(first.arrow_schema.serialized_schema))
        assert schema.names == ["s", "n"]
        assert pa.ipc.read_schema(pa.py_buffer(reading.schema)).names == ["n", "s"]


async def test_a_session_with_its_columns_in_another_order() -> None:
    plan = "- {on: create_read_session, do: {wrong: reordered}}"
    async with read_server(NUMBERS, faults=plan) as served:
        reading = await served.reading(readers=1)
        assert pa.ipc.read_schema(pa.py_buffer(reading.schema)).names == ["s", "n"]
        assert await served.rows(reading, column=1) == [*range(1_000)]


async def test_sessions_without_streams_and_with_a_huge_one() -> None:
    plan = (
        "- {on: create_read_session, do: {wrong: no_streams}}\n"
        "- {on: create_read_session, after: 1, do: {wrong: one_huge_stream}}"
    )
    async with read_server(NUMBERS, faults=plan, message_rows=50) as served:
        with pytest.raises(SourceError, match="1,000 rows and no streams"):
            await served.reading()
        reading = await served.reading(readers=2)
        counts = [len(await rows(served, reading, n)) for n in range(len(reading.streams))]
        assert sorted(counts) == [*[1] * 7, 13]


@pytest.mark.parametrize("lost", ["session", "table"])
async def test_what_is_lost_stays_lost(lost: str) -> None:
    plan = f"- {{on: read_rows, do: {{lose: {lost}, after_messages: 1}}}}"
    async with read_server(NUMBERS, faults=plan, message_rows=100) as served:
        reading = await served.reading(readers=1)
        for _ in range(2):
            with pytest.raises(ReadingExpired, match="session expired"):
                await served.rows(reading)
        if lost == "table":
            with pytest.raises(ResultExpired, match=r"Not found: Table p:d\.t"):
                await served.storage.session(TABLE, streams=IN_ORDER)
        else:
            again = await served.reading(readers=1)
            assert await served.rows(again) == [*range(1_000)]
