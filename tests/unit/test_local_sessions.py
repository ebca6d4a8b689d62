"""Read sessions of the local BigQuery: dividing, seeking, splitting, ageing, and their bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pyarrow as pa
import pytest

from pipeline.local.bigquery.memory import BLOCK_ROWS, MemoryTable
from pipeline.local.bigquery.messages import Messages, Snapshot, cut, serialize, tail
from pipeline.local.bigquery.sessions import (
    ReadRefusal,
    Sessions,
    divide,
    divide_lopsided,
    stream_count,
)

CODECS = [None, "lz4", "zstd"]


def numbers(rows: int, start: int = 0) -> pa.Table:
    values = range(start, start + rows)
    return pa.table({"n": pa.array(values, pa.int64()), "s": [f"row {value}" for value in values]})


@pytest.fixture
def snap() -> Iterator[Callable[..., Snapshot]]:
    """Makes snapshots, of tables or of so many numbers, and closes them after the test."""
    with ExitStack() as stack:
        yield lambda rows, **options: stack.enter_context(
            closing(Snapshot(numbers(rows) if isinstance(rows, int) else rows, **options))
        )


def decode(messages: Messages, index: int) -> pa.RecordBatch:
    return pa.ipc.read_record_batch(pa.py_buffer(b"".join(messages.pieces(index))), messages.schema)


def everything(messages: Messages) -> pa.Table:
    batches = [decode(messages, index) for index in range(len(messages.starts) - 1)]
    return pa.Table.from_batches(batches, messages.schema)


# ------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("codec", CODECS)
def test_a_serialized_batch_reads_back(codec: str | None) -> None:
    batch = numbers(1_000).to_batches()[0]
    message = serialize(batch, codec)
    assert pa.ipc.read_record_batch(pa.py_buffer(message), batch.schema).equals(batch)
    rest = pa.ipc.read_record_batch(
        pa.py_buffer(tail((message,), batch.schema, 7, codec)), batch.schema
    )
    assert rest.equals(batch.slice(7))


def test_cut_keeps_rows_and_order_and_its_limits() -> None:
    chance = random.Random(5)
    table = numbers(5_000)
    batches, at = [], 0
    while at < table.num_rows:
        size = chance.choice([0, 1, 3, 200, 1_000])
        batches += table.slice(at, size).combine_chunks().to_batches()
        at += size
    pieces = list(cut(batches, 4_000, 150))
    assert pa.Table.from_batches(pieces).equals(table.combine_chunks())
    assert max(piece.num_rows for piece in pieces) <= 150
    assert all(piece.nbytes <= 4_400 for piece in pieces)
    # Small batches are put together: nearly every message is near a limit.
    assert len(pieces) <= 2 * table.nbytes / 4_000


def test_a_row_over_the_limit_gets_a_message_of_its_own() -> None:
    table = pa.table({"s": ["x" * 5_000, "a", "b" * 5_000]})
    assert [piece.num_rows for piece in cut(table.to_batches(), 1_000, 10)] == [1, 1, 1]


@pytest.mark.parametrize("codec", CODECS)
def test_a_snapshot_holds_what_the_reader_gave_in_any_order_of_reading(
    codec: str | None, snap: Callable[..., Snapshot]
) -> None:
    table = numbers(3_000)
    snapshot = snap(table.to_reader(max_chunksize=100), codec=codec, message_rows=256)
    assert snapshot.starts[-1] == 3_000
    assert everything(snapshot).equals(table)
    last = len(snapshot.starts) - 2
    assert decode(snapshot, last).column("n")[0].as_py() == snapshot.starts[last]
    assert decode(snapshot, 0).column("n")[0].as_py() == 0
    snapshot.close()
    snapshot.close()


def test_a_snapshot_keeps_field_metadata_and_takes_an_empty_table(
    snap: Callable[..., Snapshot],
) -> None:
    field = pa.field("j", pa.string(), metadata={"ARROW:extension:name": "google:sqlType:json"})
    snapshot = snap(pa.table([pa.array([], pa.string())], schema=pa.schema([field])))
    assert snapshot.starts == [0]
    assert snapshot.nbytes == 0
    assert pa.ipc.read_schema(snapshot.schema.serialize()).equals(
        pa.schema([field]), check_metadata=True
    )


# ------------------------------------------------------------------------------- streams


@pytest.mark.parametrize(
    ("rows", "messages", "most", "least", "expected"),
    [
        (0, 0, 0, 0, 0),
        (0, 0, 4, 2, 0),  # nothing to read: no stream, whatever was asked for
        (1, 1, 0, 0, 1),
        (100_000, 50, 0, 0, 1),
        (100_001, 50, 0, 0, 2),
        (9_000_000, 5_000, 0, 0, 10),
        (9_000_000, 5_000, 0, 40, 40),
        (9_000_000, 5_000, 4, 0, 4),
        (9_000_000, 5_000, 5_000, 0, 1_000),
        (2_000, 3, 8, 0, 3),  # fewer may come
    ],
)
def test_stream_count(rows: int, messages: int, most: int, least: int, expected: int) -> None:
    assert stream_count(rows, messages, most=most, least=least) == expected


@pytest.mark.parametrize(("most", "least"), [(-1, 0), (0, -1), (2, 3)])
def test_impossible_stream_counts_are_refused(most: int, least: int) -> None:
    with pytest.raises(ReadRefusal) as caught:
        stream_count(10, 1, most=most, least=least)
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("messages", [1, 2, 3, 7, 10, 100, 999])
@pytest.mark.parametrize("streams", [1, 2, 3, 7, 10])
def test_divide_covers_every_message_once(messages: int, streams: int) -> None:
    runs = divide(messages, min(messages, streams))
    assert [index for first, stop in runs for index in range(first, stop)] == [*range(messages)]
    assert all(stop > first for first, stop in runs)


def test_streams_are_uneven() -> None:
    assert len({stop - first for first, stop in divide(100, 4)}) > 1


@pytest.mark.parametrize("streams", [0, 1, 2, 3, 8])
def test_a_lopsided_division_has_one_huge_stream(streams: int) -> None:
    runs = divide_lopsided(50, streams)
    sizes = sorted(stop - first for first, stop in runs)
    assert sizes == [*[1] * (streams - 1), 51 - streams][: max(streams, 0)]
    if streams:
        assert [index for first, stop in runs for index in range(first, stop)] == [*range(50)]


def sessions(now: list[float], **options: Any) -> Sessions:
    return Sessions(now=lambda: now[0], **options)


def test_seek_finds_every_row_and_refuses_what_is_beyond(snap: Callable[..., Snapshot]) -> None:
    snapshot = snap(1_000, message_rows=64)
    session = sessions([0.0]).add("p", snapshot, codec=None, streams=3)
    assert sum(map(session.stream_rows, session.streams)) == session.rows == 1_000
    first = 0
    for stream in session.streams:
        rows = session.stream_rows(stream)
        for offset in range(rows):
            index, skip = session.seek(stream, offset)
            assert stream.first <= index < stream.stop
            assert decode(snapshot, index).column("n")[skip].as_py() == first + offset
        assert session.seek(stream, rows) == (stream.stop, 0)
        with pytest.raises(ReadRefusal, match=f"offset {rows + 1} has not been allocated yet"):
            session.seek(stream, rows + 1)
        with pytest.raises(ReadRefusal, match="negative"):
            session.seek(stream, -1)
        first += rows


def test_names_have_the_services_form_and_are_unique(snap: Callable[..., Snapshot]) -> None:
    registry = sessions([0.0], location="eu")
    session = registry.add("my-project", snap(10, message_rows=1), codec=None, streams=3)
    assert session.name.startswith("projects/my-project/locations/eu/sessions/")
    assert all(s.name.startswith(f"{session.name}/streams/") for s in session.streams)
    assert len({s.name for s in session.streams}) == 3
    assert registry.find(session.streams[1].name) == (session, session.streams[1])


def test_a_session_dies_at_its_time_and_is_still_told_from_an_unknown_one(
    snap: Callable[..., Snapshot],
) -> None:
    now = [1_700_000_000.0]
    registry = sessions(now, seconds=60)
    session = registry.add("p", snap(10), codec=None, streams=1)
    name = session.streams[0].name
    now[0] += 59.9
    registry.find(name)
    now[0] += 0.1
    for _ in range(2):
        with pytest.raises(ReadRefusal, match="session expired at 2023-11-14T22:14:20") as caught:
            registry.find(name)
        assert caught.value.code == "FAILED_PRECONDITION"
    with pytest.raises(ReadRefusal) as caught:
        registry.find(name + "x")
    assert caught.value.code == "NOT_FOUND"


def test_too_many_sessions_end_the_oldest_by_number_and_by_bytes(
    snap: Callable[..., Snapshot],
) -> None:
    registry = sessions([0.0], keep=3)
    made = [registry.add("p", snap(10), codec=None, streams=1) for _ in range(5)]
    assert [session.closed for session in made] == [True, True, False, False, False]
    size = snap(10).stored_bytes
    registry = sessions([0.0], keep_bytes=2 * size)
    made = [registry.add("p", snap(10), codec=None, streams=1) for _ in range(4)]
    assert [session.closed for session in made] == [True, True, False, False]
    registry = sessions([0.0], keep_bytes=1)
    assert not registry.add("p", snap(10), codec=None, streams=1).closed


@pytest.mark.parametrize("fraction", [0.001, 0.25, 0.5, 0.999])
def test_split_gives_the_beginning_and_the_rest(
    fraction: float, snap: Callable[..., Snapshot]
) -> None:
    registry = sessions([0.0])
    session = registry.add("p", snap(1_000, message_rows=10), codec=None, streams=1)
    whole = session.streams[0]
    parts = registry.split(whole.name, fraction)
    assert parts is not None
    primary, remainder = parts
    assert (primary.first, remainder.stop) == (whole.first, whole.stop)
    assert primary.stop == remainder.first
    share = session.stream_rows(primary) / 1_000
    assert abs(share - fraction) <= 0.01
    for part in parts:
        assert registry.find(part.name) == (session, part)
    registry.find(whole.name)


def test_split_refuses_a_fraction_and_leaves_one_message_whole(
    snap: Callable[..., Snapshot],
) -> None:
    registry = sessions([0.0])
    session = registry.add("p", snap(10), codec=None, streams=1)
    assert registry.split(session.streams[0].name, 0.5) is None
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ReadRefusal) as caught:
            registry.split(session.streams[0].name, fraction)
        assert caught.value.code == "INVALID_ARGUMENT"


# ------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rows", [0, 1, 2, 4_095, 4_096, 4_097, 10_000])
def test_memory_rows_are_numbered_whatever_the_compression(rows: int, codec: str | None) -> None:
    table = MemoryTable.users(rows)
    messages = table.messages(codec=codec)
    data = everything(messages)
    assert data.column("id").to_pylist() == [*range(rows)]
    assert messages.nbytes == pytest.approx(data.nbytes, rel=0.05)  # an estimate, said to clients
    data.validate(full=True)
    assert data.drop_columns("id").equals(everything(table.messages()).drop_columns("id"))


def test_memory_blocks_repeat_but_for_their_ids() -> None:
    rows = BLOCK_ROWS + 5_000
    messages = MemoryTable.users(rows).messages()
    index = BLOCK_ROWS // 4_096
    assert messages.starts[index] == BLOCK_ROWS
    first, again = decode(messages, 0), decode(messages, index)
    assert again.column("id").to_pylist() == [*range(BLOCK_ROWS, BLOCK_ROWS + 4_096)]
    assert first.drop_columns("id").equals(again.drop_columns("id"))
    last = decode(messages, index + 1)
    assert last.column("id").to_pylist() == [*range(BLOCK_ROWS + 4_096, rows)]
    assert last.drop_columns("id").equals(decode(messages, 1).slice(0, 904).drop_columns("id"))


def test_memory_takes_columns_in_the_tables_order_and_names_an_unknown_one() -> None:
    table = MemoryTable.users(5_000)
    some = everything(table.messages(codec="lz4", selected_fields=("city", "id")))
    assert some.column_names == ["id", "city"]
    assert some.equals(table.table().select(["id", "city"]))
    without = everything(table.messages(selected_fields=("ltv",)))
    assert without.equals(table.table().select(["ltv"]))
    with pytest.raises(ReadRefusal, match="nothing"):
        table.messages(selected_fields=("nothing",))


def test_memory_keeps_few_encodings_and_reuses_them() -> None:
    table = MemoryTable.users(10)
    assert table.messages(codec="lz4") is table.messages(codec="lz4")
    for name in table.schema.names:
        table.messages(selected_fields=(name,))
    assert len(table._variants) == 4


def test_memory_as_arrow_from_any_row() -> None:
    table = MemoryTable.users(10_000)
    assert table.table(first=4_000, rows=200)["id"].to_pylist() == [*range(4_000, 4_200)]
    assert table.table(first=9_990)["id"].to_pylist() == [*range(9_990, 10_000)]
    assert table.table(first=20_000).num_rows == 0


def test_users_are_the_same_for_a_seed_and_other_for_another() -> None:
    first = MemoryTable.users(100, seed=1).table()
    assert first.equals(MemoryTable.users(100, seed=1).table())
    assert not first.equals(MemoryTable.users(100, seed=2).table())
    assert first.num_columns == 13
    assert first.schema.field("created").metadata == {
        b"ARROW:extension:name": b"google:sqlType:datetime"
    }
