from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import signal
import threading
from io import FileIO
from pathlib import Path

import pytest

from pipeline.errors import DestinationError, DestinationRefused
from pipeline.model import Request
from pipeline.send import file_transport
from pipeline.send.file_transport import FileTransport


def lines(body: bytes) -> Request:
    return Request(url="", headers={}, body=body)


async def test_files_take_bodies_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.ndjson"
    for append, expected in ((False, b"a\nb\n"), (True, b"a\nb\na\nb\n"), (False, b"a\nb\n")):
        one = FileTransport(path, append=append)
        await one.post(lines(b"a\n"))
        assert (await one.post(lines(b"b\n"))).status == 200
        await one.close()
        await one.close()
        assert path.read_bytes() == expected


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        pytest.param(b"", b"", id="empty"),
        pytest.param(b'{"a":1}\n', b'{"a":1}\n', id="whole lines"),
        pytest.param(b'{"a":1}\n{"b":', b'{"a":1}\n', id="half a line of ours"),
        pytest.param(b'{"a":1}\n{"b":2}', b'{"a":1}\n{"b":2}\n', id="a line without its end"),
        pytest.param(b'{"a":1}', b'{"a":1}\n', id="one line without its end"),
        pytest.param(b"a,b\n1,2\n", b"a,b\n1,2\n", id="lines of others"),
        pytest.param(b'{"a":1}\n{' + b"x" * 70, b'{"a":1}\n', id="half of the longest line"),
        pytest.param(
            b'{"a":1}\n"' + b"x" * 69 + b'"',
            b'{"a":1}\n"' + b"x" * 69 + b'"\n',
            id="the longest line",
        ),
    ],
)
async def test_an_old_file_ends_in_whole_lines_first(
    tmp_path: Path, left: bytes, kept: bytes
) -> None:
    path = tmp_path / "out.ndjson"
    path.write_bytes(left)
    one = FileTransport(path, append=True, line_bytes=71)
    await one.open()
    assert path.read_bytes() == kept
    await one.post(lines(b"{}\n"))
    await one.close()
    assert path.read_bytes() == kept + b"{}\n"


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(b"a password", id="one line of something else"),
        pytest.param(b'{"a":', id="half a document"),
        pytest.param(b"a,b\n1,2", id="a table"),
        pytest.param(b"\x00" * 500, id="bytes"),
        pytest.param(b'{"a":1}\n{' + b"x" * 500, id="more than a line can be"),
        pytest.param(b'"' + b"x" * 500 + b'"', id="a document that is too long"),
    ],
)
async def test_what_was_not_written_here_is_refused_and_stays(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(left)
    one = FileTransport(path, append=True, line_bytes=71)
    for use in (one.open(), one.post(lines(b"{}\n"))):
        with pytest.raises(DestinationRefused, match=r"notes\.txt is not a file of JSON lines"):
            await use
    await one.close()
    assert path.read_bytes() == left


async def test_of_an_old_file_only_the_end_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    real = file_transport._read

    def noted(file: FileIO, start: int, stop: int) -> bytes:
        read.append(stop - start)
        return real(file, start, stop)

    monkeypatch.setattr(file_transport, "_read", noted)
    path = tmp_path / "out.ndjson"
    path.write_bytes(b'{"a":1}\n' * 100_000 + b'{"a"')
    one = FileTransport(path, append=True, line_bytes=1_000)
    await one.post(lines(b"{}\n"))
    await one.close()
    assert max(read) == 1_001
    assert path.stat().st_size == 800_000 + 3


async def test_several_transports_append_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "out.ndjson"
    several = [FileTransport(path, append=True) for _ in range(3)]
    bodies = [
        b"".join(b'{"by":%d,"number":%d}\n' % (by, number) for number in range(start, start + 50))
        for by in range(3)
        for start in range(0, 500, 50)
    ]
    await asyncio.gather(
        *(several[index % 3].post(lines(body)) for index, body in enumerate(bodies))
    )
    for one in several:
        await one.close()
    seen = {(row["by"], row["number"]) for row in map(json.loads, path.read_bytes().splitlines())}
    assert seen == {(by, number) for by in range(3) for number in range(500)}


async def test_a_cancelled_post_gives_its_turn_back_when_its_write_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go, real = threading.Event(), threading.Event(), file_transport._write_all

    def slow(file: object, body: bytes) -> None:
        half = len(body) // 2
        real(file, body[:half])  # type: ignore[arg-type]
        if not writing.is_set():
            writing.set()
            assert go.wait(10)
        real(file, body[half:])  # type: ignore[arg-type]

    path = tmp_path / "out.ndjson"
    one = FileTransport(path, append=True)
    await one.open()
    monkeypatch.setattr(file_transport, "_write_all", slow)
    first = asyncio.create_task(one.post(lines(b'{"first":1}\n')))
    assert await asyncio.to_thread(writing.wait, 10)
    second = asyncio.create_task(one.post(lines(b'{"second":2}\n')))
    for _ in range(2):  # a second cancellation is not heard either
        first.cancel()
        await asyncio.sleep(0)
    assert not first.done()
    closing = asyncio.create_task(one.close())
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    await closing
    assert path.read_bytes() == b'{"first":1}\n{"second":2}\n'


async def test_a_write_that_fails_while_it_is_cancelled_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go = threading.Event(), threading.Event()

    def fails(_file: object, _body: bytes) -> None:
        writing.set()
        assert go.wait(10)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(file_transport, "_write_all", fails)
    one = FileTransport(tmp_path / "out.ndjson", append=True)
    post = asyncio.create_task(one.post(lines(b"{}\n")))
    assert await asyncio.to_thread(writing.wait, 10)
    post.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await post
    await one.close()


async def test_a_delivered_body_is_on_the_disk_and_a_new_file_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "out.ndjson", list[tuple[str, int]]()

    def noted(handle: int) -> None:
        target = Path(f"/proc/self/fd/{handle}").readlink()
        synced.append((target.name, target.stat().st_size if target == path else 0))

    monkeypatch.setattr(os, "fsync", noted)
    one = FileTransport(path, append=True)
    await one.post(lines(b"{}\n"))
    assert synced == [(tmp_path.name, 0), ("out.ndjson", 3)]
    await one.close()


async def test_a_full_disk_is_for_trying_again() -> None:
    one = FileTransport(Path("/dev/full"), append=True)
    with pytest.raises(DestinationError, match=r"/dev/full can't be written: No space.* Make room"):
        await one.post(lines(b"{}\n"))
    await one.close()


async def test_a_write_that_fails_half_way_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "out.ndjson"
    one = FileTransport(path, append=True)
    await one.post(lines(b'"first"\n'))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limit[1]))
    try:
        with pytest.raises(DestinationRefused, match="can't be written"):  # EFBIG, not ENOSPC
            await one.post(lines(b'"x"\n' * 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b'"first"\n'
    await one.post(lines(b'"second"\n'))
    await one.close()
    assert path.read_bytes() == b'"first"\n"second"\n'


async def test_what_another_left_of_a_line_meanwhile_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "out.ndjson"
    one = FileTransport(path, append=True)
    await one.post(lines(b'"first"\n'))
    with path.open("ab") as other:  # as a process leaves it that is killed in mid-write
        other.write(b'{"tor')
    await one.post(lines(b'"second"\n'))
    await one.close()
    assert path.read_bytes() == b'"first"\n"second"\n'


@pytest.mark.parametrize(
    ("number", "kind", "remedy"),
    [
        (errno.ENOSPC, DestinationError, "Make room"),
        (errno.EDQUOT, DestinationError, "Make room"),
        (errno.EIO, DestinationError, "Set that right"),
        (errno.EROFS, DestinationRefused, "Let this user write there"),
        (errno.EACCES, DestinationRefused, "Let this user write there"),
        (errno.ENOENT, DestinationRefused, "Set that right"),
    ],
)
async def test_what_the_system_refuses_is_told_with_the_path_and_a_remedy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[DestinationError],
    remedy: str,
) -> None:
    def fails(_file: object, _body: bytes) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(file_transport, "_write_all", fails)
    path = tmp_path / "out.ndjson"
    one = FileTransport(path, append=True)
    with pytest.raises(DestinationError, match=remedy) as caught:
        await one.post(lines(b"{}\n"))
    await one.close()
    assert type(caught.value) is kind
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["folder", "file/below"])
async def test_a_path_that_can_not_be_a_file_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    one = FileTransport(tmp_path / name, append=True)
    with pytest.raises(DestinationRefused, match=f"{name} can't be written: .*`path`"):
        await one.open()
    await one.close()
