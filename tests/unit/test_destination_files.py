"""Folders of whole files: their content, their names, and what a fault does."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DestinationError, DestinationRefused
from pipeline.events import Attempted, Event, Retried
from pipeline.model import Batch, Payloads, Slice, Span
from pipeline.send import folder as folder_module
from pipeline.send.folder import Folder
from pipeline.send.part_files import PartFiles
from pipeline.send.part_format import PARQUET_SCHEMA, ndjson, parquet
from pipeline.send.retry import RetryPolicy


def payloads(
    lines: Sequence[bytes], *, first: int = 0, rows: Sequence[int] | None = None
) -> Payloads:
    data = b"".join(line + b"\n" for line in lines)
    offsets = np.cumsum([0, *(len(line) + 1 for line in lines)]).astype(np.int64)
    count = len(lines) if rows is None else max(rows) + 1 - first
    return Payloads(
        data=memoryview(data),
        offsets=offsets,
        span=Span(stream=3, first=first, rows=count),
        rows=None if rows is None else np.array(rows, dtype=np.int64),
    )


def batch_of(*parts: Slice, first: int = 0) -> Batch:
    count = sum(part.rows for part in parts)
    return Batch(slices=parts, span=Span(stream=3, first=first, rows=count + 5), nbytes=1)


# ---------------------------------------------------------------------------------- content


def test_lines_and_rows_hold_the_same_payloads() -> None:
    messages = [
        {"type": "identify", "userId": "7", "messageId": "m1", "traits": {"userId": 9}},
        {"type": "track", "anonymousId": 'é"\\\n', "messageId": "m2", "event": "x"},
        {"type": "group", "groupId": "", "userId": "8"},
    ]
    lines = [json.dumps(one, ensure_ascii=False).encode() for one in messages]
    one, two = payloads(lines[:2]), payloads([b"{}", lines[2], b"{}"])
    part = (Slice(one, 0, 2), Slice(two, 1, 2))
    assert ndjson(part) == b"\n".join(lines) + b"\n"
    table = pq.read_table(pa.BufferReader(parquet(part)))
    assert table.schema.equals(PARQUET_SCHEMA)
    assert table["payload"].to_pylist() == [line.decode() for line in lines]
    for name in ("messageId", "type", "userId", "anonymousId", "groupId"):
        assert table[name].to_pylist() == [one.get(name) for one in messages]


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(b'{"userId":"b","n":1e999}', id="a number that is too large"),
        pytest.param(b'{"userId":"b","n":\n1}', id="a line break"),
        pytest.param(b'{"userId":"b","n":}', id="no JSON"),
        pytest.param(b'{"userId":5}', id="an id that is no text"),
        pytest.param(b"[1]", id="no object"),
    ],
)
def test_one_odd_payload_costs_the_others_nothing(odd: bytes) -> None:
    lines = [b'{"userId":"a"}', odd, b'{"userId":"c"}']
    table = pq.read_table(pa.BufferReader(parquet([Slice(payloads(lines), 0, 3)])))
    assert table["payload"].to_pylist() == [line.decode() for line in lines]
    ids = table["userId"].to_pylist()
    assert (ids[0], ids[2]) == ("a", "c")
    assert ids[1] in {"b", None}


# ----------------------------------------------------------------------------------- folder


def entries(path: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in path.iterdir()}


@pytest.mark.parametrize("uri", [False, True])
def test_a_file_is_whole_and_replaces_another(tmp_path: Path, uri: bool) -> None:  # noqa: FBT001
    path = tmp_path / "new" / "folder"
    one = Folder(f"file://{path}" if uri else str(path))
    one.look()
    assert not path.exists()
    one.put("a", b"1")
    one.put("b", pa.py_buffer(b"22"))
    one.put("a", b"333")
    assert entries(path) == {"a": b"333", "b": b"22"}


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Folder(str(tmp_path))
    one.put("a", b"old")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_module.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        one.put("a", b"new")
    assert entries(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize("whole", [False, True])
def test_a_store_that_shows_half_files_gets_the_name_last(
    monkeypatch: pytest.MonkeyPatch,
    whole: bool,  # noqa: FBT001
) -> None:
    seen: list[tuple[str, str]] = []
    if whole:  # as object stores do
        monkeypatch.setattr(folder_module, "_OBJECT_STORES", {"py::hdfs"})

    class Recording(pafs.PyFileSystem): ...

    class Handler(pafs.FSSpecHandler):
        def __init__(self) -> None: ...

        def get_type_name(self) -> str:
            return "hdfs"

        def create_dir(self, path: str, recursive: bool) -> None:  # noqa: FBT001
            seen.append(("dir", path))

        def open_output_stream(self, path: str, metadata: object) -> pa.NativeFile:
            seen.append(("open", path))
            return pa.BufferOutputStream()

        def move(self, src: str, dest: str) -> None:
            seen.append((src, dest))

    one = Folder("hdfs://host/x")
    one._opened = Recording(Handler()), "x"
    one.put("a", b"1")
    if whole:
        assert seen == [("open", "x/a")]
        return
    assert [step for step, _ in seen[:2]] == ["dir", "open"]
    hidden = seen[1][1]
    assert hidden.startswith("x/.a.")
    assert seen[2] == (hidden, "x/a")


def test_a_uri_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="nosuch"):
        Folder("nosuch://bucket").look()


# -------------------------------------------------------------------------------- deliverer


class FakeFolder(Folder):
    """faults: what the next writes raise; None: it works."""

    def __init__(self, *faults: Exception | None) -> None:
        super().__init__("")
        self.faults, self.files = list(faults), dict[str, bytes]()

    def put(self, name: str, data: bytes | pa.Buffer) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        self.files[name] = bytes(data)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[Event] = []

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def writer(self, folder: Folder, write: Callable[..., bytes | pa.Buffer] = ndjson) -> PartFiles:
        return PartFiles(
            folder,
            sync="users",
            destination="lake",
            shown="gs://bucket/x",
            write=write,
            suffix=".ndjson",
            retry=RetryPolicy(deadline=60.0),
            observer=self.events.append,
            clock=lambda: self.now,
            sleep=self.sleep,
            uniform=lambda _low, high: high,
        )


async def test_a_file_is_named_by_run_stream_and_first_payload() -> None:
    store, clock = FakeFolder(), Clock()
    one = clock.writer(store)
    one.begin("run-1")
    rows = payloads([b'{"a":1}', b'{"a":2}'], first=10, rows=[12, 14])
    # Whether invalid rows before the first payload belong to this batch is a matter of the frames.
    for first in (10, 11):
        delivery = await one.deliver(batch_of(Slice(rows, 0, 2), first=first))
        assert not delivery.rejections
    await one.deliver(batch_of(Slice(rows, 1, 2), first=13))
    assert store.files == {
        "part-run-1-3-12.ndjson": b'{"a":1}\n{"a":2}\n',
        "part-run-1-3-14.ndjson": b'{"a":2}\n',
    }
    assert (one.sent.requests, one.sent.bytes_sent, one.sent.retries) == (3, 40, 0)
    attempts = [event for event in clock.events if isinstance(event, Attempted)]
    assert [(event.status, event.rows) for event in attempts] == [(200, 2), (200, 2), (200, 1)]


async def test_rows_of_no_run_replace_nothing() -> None:
    store = FakeFolder()
    one = Clock().writer(store)
    rows = payloads([b"{}"])
    for _ in range(2):
        await one.deliver(batch_of(Slice(rows, 0, 1)))
    assert len(store.files) == 2


async def test_passing_faults_are_tried_again_until_the_deadline() -> None:
    clock = Clock()
    rows = payloads([b"{}"])
    store = FakeFolder(OSError("AWS Error NETWORK_CONNECTION"), TimeoutError(), None)
    one = clock.writer(store)
    await one.deliver(batch_of(Slice(rows, 0, 1)))
    assert one.sent.retries == 2
    assert sum(isinstance(event, Retried) for event in clock.events) == 2
    down = clock.writer(FakeFolder(*[OSError("AWS Error SLOW_DOWN")] * 99))
    with pytest.raises(DestinationError, match=r"AWS Error SLOW_DOWN.*60 s.*Nothing was lost"):
        await down.deliver(batch_of(Slice(rows, 0, 1)))
    assert clock.now < 90


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (OSError(errno.ENOSPC, "No space left"), DestinationError, "Make room"),
        (PermissionError(errno.EACCES, "Denied"), DestinationRefused, "Let this user"),
        (FileNotFoundError(errno.ENOENT, "No bucket"), DestinationRefused, "No bucket"),
        (OSError("AWS Error ACCESS_DENIED during Put"), DestinationRefused, "credentials"),
        (pa.ArrowInvalid("Unrecognized filesystem type"), DestinationRefused, "Unrecognized"),
    ],
)
async def test_what_time_does_not_heal_ends_the_run(
    fault: Exception, kind: type[Exception], words: str
) -> None:
    clock = Clock()
    one = clock.writer(FakeFolder(fault))
    with pytest.raises(DestinationError, match=words) as caught:
        await one.deliver(batch_of(Slice(payloads([b'{"hunter2":1}']), 0, 1)))
    assert type(caught.value) is kind
    assert clock.now == 0
    assert "hunter2" not in str(caught.value)
    assert "destinations.lake" in str(caught.value)
