from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, ReadingExpired, SourceError
from pipeline.model import Reading, Window
from pipeline.source.file import Files

WINDOW = Window(start=0, sequence=1)
TABLE = pa.table(
    {"id": range(20_000), "doc": ["{}"] * 20_000},
    schema=pa.schema(
        [
            pa.field("id", pa.int64()),
            pa.field("doc", pa.string(), metadata={"ARROW:extension:name": "google:sqlType:json"}),
        ]
    ),
)


def write(path: Path, table: pa.Table = TABLE, rows: int = 3_000) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=rows)
        return path
    new = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    with new(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


async def ids(files: Files, reading: Reading, stream: int, first: int) -> list[int]:
    found, at = [], first
    async with aclosing(files.read(reading, stream, first)) as frames:
        async for frame in frames:
            assert frame.span.first == at
            batch = frame.record_batch()
            assert frame.span.rows == batch.num_rows > 0
            at = frame.span.end
            found += batch.column("id").to_pylist()
    return found


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".arrows"])
@pytest.mark.parametrize("first", [0, 1, 2_999, 3_000, 19_999, 20_000])
async def test_a_file_is_read_from_any_row(tmp_path: Path, suffix: str, first: int) -> None:
    path = write(tmp_path / f"rows{suffix}")
    files = Files(str(path), where="sync s", clock=lambda: 7.0)
    reading = await files.start(WINDOW, "key")
    assert (reading.rows, reading.query_started, len(reading.streams)) == (20_000, 7, 1)
    schema = pa.ipc.read_schema(pa.py_buffer(reading.schema))
    assert schema.field("doc").metadata == {b"ARROW:extension:name": b"google:sqlType:json"}
    assert await ids(files, reading, 0, first) == list(range(first, 20_000))
    assert (await files.dry_run(WINDOW)).bytes_processed == path.stat().st_size
    await files.close()


async def test_a_folder_is_a_stream_per_file(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.arrow"):
        write(tmp_path / name, TABLE.slice(0, 10))
    (tmp_path / "notes.txt").write_text("not data")
    files = Files(tmp_path.as_uri(), where="sync s")
    reading = await files.start(WINDOW, "key")
    assert [Path(name).name for name in reading.streams] == ["a.arrow", "b.parquet"]
    assert reading.rows == 20
    assert await ids(files, reading, 1, 8) == [8, 9]
    preview = await files.preview(WINDOW, 12, "key")
    assert preview.column("id").to_pylist() == [*range(10), 0, 1]


async def test_what_can_not_be_read_says_where_and_why(tmp_path: Path) -> None:
    garbage = tmp_path / "x.parquet"
    garbage.write_bytes(b"garbage, and not little")
    empty = tmp_path / "empty"
    empty.mkdir()
    other = tmp_path / "other"
    other.mkdir()
    write(other / "a.parquet", TABLE.slice(0, 1))
    write(other / "b.parquet", pa.table({"id": [1]}))
    for path, said in [
        (tmp_path / "none.parquet", "no file at"),
        (garbage, "can't be read as Parquet or Arrow"),
        (empty, "no Parquet or Arrow files"),
        (other, "other columns"),
    ]:
        with pytest.raises(ConfigError, match=said):
            await Files(str(path), where="sync s").start(WINDOW, "key")
    with pytest.raises((ConfigError, SourceError), match="can't be read"):
        await Files("nope://bucket/x", where="sync s").start(WINDOW, "key")


async def test_a_file_that_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet")
    files = Files(str(path), where="sync s")
    reading = await files.start(WINDOW, "key")
    await asyncio.to_thread(write, path, TABLE.slice(0, 100))
    with pytest.raises(ReadingExpired, match="has changed"):
        await ids(files, reading, 0, 5)


async def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))
    path = write(tmp_path / "bad.arrow", pa.table({"id": bad}))
    files = Files(str(path), where="sync s")
    reading = await files.start(WINDOW, "key")
    with pytest.raises(SourceError, match="not UTF-8"):
        await ids(files, reading, 0, 0)
