"""The Storage Read API's service, google.cloud.bigquery.storage.v1.BigQueryRead, over gRPC.

Messages of rows are put together from ready bytes; protobuf objects exist for requests and for
the few fields around the rows. Blocking work (a query, writing a snapshot) runs in threads.
Statuses and wordings follow what clients of the service report.
What is refused though the service knows it: AVRO, sample_percentage and
response_compression_codec; by synthetic tables also row_restriction; snapshot_time from before a
table's last change.
Knows no SQL and no sessions' storage.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

from pipeline.local.bigquery.damage import by_itself, garbled, reordered, schema_bytes, truncated
from pipeline.local.bigquery.errors import STATUS_OF_HTTP, LocalError
from pipeline.local.bigquery.memory import MemoryTable
from pipeline.local.bigquery.messages import MESSAGE_BYTES, MESSAGE_ROWS, Messages, Snapshot, tail
from pipeline.local.bigquery.read_checks import CODECS, check_options, check_routing, invalid, parse
from pipeline.local.bigquery.sessions import ReadRefusal, Session, Sessions, stream_count
from pipeline.local.bigquery.strike import strike
from pipeline.local.bigquery.wire import rows_response, session_response, split_response
from pipeline.local.faults import Fault, FaultPlan

SERVICE = "google.cloud.bigquery.storage.v1.BigQueryRead"
FORBIDDEN_PROJECT = "forbidden"  # the project in which nobody may create read sessions

_CreateReadSessionRequest = types.CreateReadSessionRequest.pb()
_ReadRowsRequest = types.ReadRowsRequest.pb()
_SplitReadStreamRequest = types.SplitReadStreamRequest.pb()

_PARENT = re.compile(r"projects/([^/]+)")
_TABLE = re.compile(r"projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)")

_UNLIMITED = -1
SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", _UNLIMITED),
    ("grpc.max_send_message_length", _UNLIMITED),
    ("grpc.so_reuseport", 0),  # a second server on a port is a mistake, not a share
    # Clients ping every 30 s; grpc's default takes more than two idle pings in 5 min for abuse.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class Tables(Protocol):
    """What is needed of a Warehouse."""

    def table(
        self,
        project: str,
        dataset: str,
        table: str,
        *,
        row_restriction: str = "",
        selected_fields: tuple[str, ...] = (),
        snapshot_time: float | None = None,
    ) -> pa.RecordBatchReader | pa.Table:
        """The table's rows in BigQuery's Arrow types. Raises LocalError."""


class ReadApi:
    """Answers the service's calls on one event loop.

    synthetic: tables from memory by (dataset, table), in every project; they come before the
        warehouse's.
    message_bytes, message_rows: the size of a message: bytes before compression, and rows.
    directory: where snapshots are kept; None: the system's directory for temporary files.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        synthetic: Mapping[tuple[str, str], MemoryTable] | None = None,
        faults: FaultPlan | None = None,
        sessions: Sessions | None = None,
        message_bytes: int = MESSAGE_BYTES,
        message_rows: int = MESSAGE_ROWS,
        directory: Path | None = None,
    ) -> None:
        self._tables = tables
        self._synthetic = synthetic or {}
        self._faults = faults or FaultPlan()
        self._sessions = sessions or Sessions()
        self._message_bytes = message_bytes
        self._message_rows = message_rows
        self._directory = directory
        self._lost: set[str] = set()  # tables that a fault made away with

    def handlers(self) -> Any:
        """The service as a grpc.GenericRpcHandler; bytes in, bytes out."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "CreateReadSession": grpc.unary_unary_rpc_method_handler(self._create),
                "ReadRows": grpc.unary_stream_rpc_method_handler(self._read),
                "SplitReadStream": grpc.unary_unary_rpc_method_handler(self._split),
            },
        )

    def close(self) -> None:
        """End all sessions and give up their snapshots."""
        self._sessions.close()

    # --------------------------------------------------------------------- the three calls

    async def _create(self, data: bytes, context: Any) -> bytes:
        fault = self._faults.next("create_read_session")
        if fault is not None and not fault.taken:
            await strike(fault, context)
        try:
            request = parse(_CreateReadSessionRequest, data)
            check_routing(context, "read_session.table", request.read_session.table)
            if fault is not None and fault.lose:
                self._lost.add(request.read_session.table)
            answer = await self._create_session(request, fault.wrong if fault else None)
        except (ReadRefusal, LocalError) as error:
            await _refuse(error, context)
        if fault is not None and fault.taken:
            await strike(fault, context)
        return answer

    async def _read(self, data: bytes, context: Any) -> AsyncIterator[bytes]:
        fault = self._faults.next("read_rows")
        if fault is not None and fault.after_messages is None and by_itself(fault):
            await strike(fault, context)
            fault = None
        try:
            request = parse(_ReadRowsRequest, data)
            check_routing(context, "read_stream", request.read_stream)
            session, stream = self._sessions.find(request.read_stream)
            index, skip = session.seek(stream, request.offset)
            schema = schema_bytes(session.messages.schema, fault)
            rows, base = session.stream_rows(stream), session.messages.starts[stream.first]
            sent = 0
            while index < stream.stop:
                due = fault if fault is not None and sent >= (fault.after_messages or 0) else None
                fault = None if due else fault
                if due is not None:
                    await strike(due, context)
                    self._lose(due, session)
                    if due.wrong == "ended":
                        return
                self._sessions.check(session, stream)
                first, end = (
                    session.messages.starts[index] + skip,
                    session.messages.starts[index + 1],
                )
                wrong = due.wrong if due else None
                pieces = _pieces(session, index, skip)
                answer = rows_response(
                    garbled(pieces) if wrong == "garbled" else pieces,
                    rows=end - first,
                    progress=((first - base) / rows, (end - base) / rows),
                    schema=b"" if sent else schema,
                )
                yield truncated(answer) if wrong == "truncated" else answer
                sent, index, skip = sent + 1, index + 1, 0
            if fault is not None and sent >= (fault.after_messages or 0):
                await strike(fault, context)
        except ReadRefusal as error:
            await _refuse(error, context)

    def _lose(self, fault: Fault, session: Session) -> None:
        """End the session, and let its table be gone, if that is the fault."""
        if fault.lose:
            session.close()
        if fault.lose == "table":
            self._lost.add(session.table)

    async def _split(self, data: bytes, context: Any) -> bytes:
        fault = self._faults.next("split_read_stream")
        if fault is not None:
            await strike(fault, context)
        try:
            request = parse(_SplitReadStreamRequest, data)
            check_routing(context, "name", request.name)
            parts = self._sessions.split(request.name, request.fraction)
        except ReadRefusal as error:
            await _refuse(error, context)
        return split_response(parts)

    # --------------------------------------------------------------------- creating sessions

    async def _create_session(self, request: Any, wrong: str | None) -> bytes:
        """wrong: what is to be wrong with the session; see `pipeline.local.fault.WRONG`."""
        wanted = request.read_session
        parent, table = _PARENT.fullmatch(request.parent), _TABLE.fullmatch(wanted.table)
        if parent is None:
            raise invalid(f"parent {request.parent!r} is not of the form projects/PROJECT")
        if table is None:
            raise invalid(
                f"table {wanted.table!r} is not of the form projects/P/datasets/D/tables/T"
            )
        check_options(wanted)
        # Checked before a snapshot is made for nothing.
        least, most = request.preferred_min_stream_count, request.max_stream_count
        stream_count(0, 0, most=most, least=least)
        if parent[1] == FORBIDDEN_PROJECT:
            raise ReadRefusal(
                "PERMISSION_DENIED",
                "request failed: the user does not have 'bigquery.readsessions.create' "
                f"permission for '{request.parent}'",
            )
        options = wanted.read_options
        codec = CODECS[options.arrow_serialization_options.buffer_compression]
        synthetic = self._synthetic.get((table[2], table[3]))
        if synthetic is not None and not most:
            most = max(least, synthetic.streams)
        if wanted.table in self._lost:
            raise ReadRefusal("NOT_FOUND", f"Not found: Table {table[1]}:{table[2]}.{table[3]}")
        messages = await asyncio.to_thread(
            self._messages, synthetic, table.groups(), wanted, codec, wrong
        )
        count = stream_count(messages.starts[-1], len(messages.starts) - 1, most=most, least=least)
        session = self._sessions.add(
            parent[1],
            messages,
            codec=codec,
            streams=0 if wrong == "no_streams" else count,
            table=wanted.table,
            lopsided=wrong == "one_huge_stream",
        )
        return session_response(wanted, session)

    def _messages(
        self,
        synthetic: MemoryTable | None,
        table: tuple[str | Any, ...],
        wanted: Any,
        codec: str | None,
        wrong: str | None,
    ) -> Messages:
        options, modifiers = wanted.read_options, wanted.table_modifiers
        fields, snapshot = tuple(options.selected_fields), None
        if modifiers.HasField("snapshot_time"):
            snapshot = modifiers.snapshot_time.ToNanoseconds() / 1e9
        if synthetic is not None:
            if options.row_restriction:
                raise ReadRefusal("UNIMPLEMENTED", "a synthetic table takes no row_restriction")
            return synthetic.messages(codec=codec, selected_fields=fields)
        rows = self._tables.table(
            *table,
            row_restriction=options.row_restriction,
            selected_fields=fields,
            snapshot_time=snapshot,
        )
        try:
            return Snapshot(
                reordered(rows) if wrong == "reordered" else rows,
                codec=codec,
                message_bytes=self._message_bytes,
                message_rows=self._message_rows,
                directory=self._directory,
            )
        except OSError as error:
            raise ReadRefusal("INTERNAL", f"the snapshot can't be written: {error}") from error


async def start(api: ReadApi, *, host: str = "127.0.0.1", port: int = 0) -> tuple[Any, int]:
    """A running grpc.aio.Server and its port. Raises OSError when it can't listen there."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((api.handlers(),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"The Storage Read API can't listen on {address}: {error}") from error
    await server.start()
    return server, bound


async def _refuse(error: ReadRefusal | LocalError, context: Any) -> NoReturn:
    if isinstance(error, ReadRefusal):
        code = error.code
    else:
        code = STATUS_OF_HTTP.get(error.http, "INTERNAL")
    await context.abort(grpc.StatusCode[code], error.message)
    raise AssertionError("abort raises")


def _pieces(session: Session, index: int, skip: int) -> tuple[bytes | memoryview, ...]:
    """Message `index` without its first `skip` rows."""
    pieces = session.messages.pieces(index)
    if not skip:
        return pieces
    return (tail(pieces, session.messages.schema, skip, session.codec),)
