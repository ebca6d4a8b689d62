"""The local BigQuery as one process: REST and gRPC over one warehouse, and synthetic tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcTransport,
)

from pipeline.errors import ConfigError
from pipeline.local.bigquery.server import Address, serve


def batch_of(message: types.ReadRowsResponse, schema: pa.Schema) -> pa.RecordBatch:
    buffer = pa.py_buffer(message.arrow_record_batch.serialized_record_batch)
    batch = pa.ipc.read_record_batch(buffer, schema)
    assert batch.num_rows == message.row_count == message.arrow_record_batch.row_count
    return batch


@asynccontextmanager
async def process(**options: Any) -> AsyncIterator[Address]:
    """The whole local BigQuery on this loop."""
    stop = asyncio.Event()
    address: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(ready=address.set_result, stop=stop, **options))
    await asyncio.wait({server, address}, return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        server.result()
    try:
        yield address.result()
    finally:
        stop.set()
        await server


def query_client(address: Address) -> bigquery.Client:
    return bigquery.Client(
        project="my-project",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": address.rest},
    )


def read_all(address: Address, table: str, **options: Any) -> tuple[types.ReadSession, pa.Table]:
    unlimited = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address.storage, options=unlimited) as channel:
        client = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
        session = client.create_read_session(
            parent="projects/my-project",
            read_session=types.ReadSession(table=table, data_format=types.DataFormat.ARROW),
            **options,
        )
        schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
        batches = [
            batch_of(message, schema)
            for stream in session.streams
            for message in client.read_rows(stream.name)
        ]
        return session, pa.Table.from_batches(batches, schema)


async def test_a_query_over_rest_and_its_result_over_grpc() -> None:
    sql = (
        "SELECT id, CONCAT('row ', CAST(id AS STRING)) AS s, "
        "DATETIME '2024-01-01 00:00:00' AS d FROM UNNEST(GENERATE_ARRAY(1, 5000)) AS id ORDER BY id"
    )

    def run(address: Address) -> None:
        with closing(query_client(address)) as client:
            job = client.query(sql)
            job.result(max_results=0)
            destination = job.destination
        session, table = read_all(address, destination.to_bqstorage(), max_stream_count=4)
        assert len(session.streams) == 4
        assert table["id"].to_pylist() == [*range(1, 5_001)]
        assert table["s"][4_999].as_py() == "row 5000"
        assert table.schema.field("d").metadata == {
            b"ARROW:extension:name": b"google:sqlType:datetime"
        }

    async with process(message_rows=500) as address:
        await asyncio.to_thread(run, address)


async def test_a_synthetic_table_is_its_own_query_result() -> None:
    def run(address: Address) -> None:
        with closing(query_client(address)) as client:
            dry = client.query("SELECT * FROM bench.users", bigquery.QueryJobConfig(dry_run=True))
            assert dry.statement_type == "SELECT"
            assert dry.total_bytes_processed > 5_000 * 100
            assert [field.name for field in dry.schema][:2] == ["id", "email"]
            job = client.query("SELECT * FROM bench.users")
            rows = job.result(max_results=3)
            assert [row["id"] for row in rows] == [0, 1, 2]
            assert job.destination.table_id == "users"
            assert client.get_table(job.destination).num_rows == 5_000
        _, table = read_all(address, job.destination.to_bqstorage(), max_stream_count=2)
        assert table["id"].to_pylist() == [*range(5_000)]

    async with process(synthetic={"users": 5_000}) as address:
        await asyncio.to_thread(run, address)


async def test_what_the_process_refuses() -> None:
    with pytest.raises(ConfigError, match="no synthetic table nothing"):
        async with process(synthetic={"nothing": 1}):
            pass
    async with process() as address:
        taken = int(address.rest.rpartition(":")[2])
        with pytest.raises(ConfigError, match="can't listen on"):
            async with process(port=taken):
                pass
        taken = int(address.storage.rpartition(":")[2])
        with pytest.raises(ConfigError, match="can't listen on"):
            async with process(storage_port=taken):
                pass


async def test_an_unusable_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"not a database" * 1_000)
    with pytest.raises(ConfigError, match="can't open its database"):
        async with process(database=tmp_path / "db"):
            pass
