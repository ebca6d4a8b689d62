"""Bodies appended to a file: the Transport of the file destination.

The file only ever holds whole lines. Each write sees to that first, under a lock of the file, so
that several syncs may append to one file, also from several processes: half a line that somebody
left by a crash or a full disk is cut off, a whole JSON text without its line end gets one, and
anything else was not written here: such a file is refused and stays as it is.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

import orjson

from pipeline.errors import DestinationError, DestinationRefused
from pipeline.model import Answer, Request

if sys.platform != "win32":
    import fcntl

# Faults of files that pass when somebody makes room, or by themselves; and what to do about some.
PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE})
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Let this user write there"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "Let more files be open"),
}


class FileTransport:
    """A `Transport` to one file, in the order of the posts.

    append: keep what is there, and have every body on the disk before its post returns: what is
        delivered outlives a power cut. Else the file is made anew, and left to the system to write.
    line_bytes: the longest payload; no more of the file than that is read.
    """

    def __init__(self, path: Path, *, append: bool, line_bytes: int = 4_000_000) -> None:
        self._path, self._append, self._line_bytes = path, append, line_bytes
        self._file: FileIO | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Make the file ready. Raises DestinationRefused when that can't be."""
        await self._in_turn(self._write, b"")

    async def post(self, request: Request) -> Answer:
        """Write all of the body or nothing. Cancelling waits for the end of a write.

        Raises DestinationError: a full disk is not for retrying.
        """
        await self._in_turn(self._write, bytes(request.body))
        return Answer(status=200)

    async def close(self) -> None:
        """Close the file."""
        await self._in_turn(self._close)

    async def _in_turn(self, work: Callable[..., object], *arguments: bytes) -> None:
        async with self._turn:
            try:
                await _to_the_end(work, *arguments)
            except OSError as error:
                kind = DestinationError if error.errno in PASSING else DestinationRefused
                remedy = REMEDIES.get(error.errno or 0, "Set that right")
                raise kind(
                    f"{self._path} can't be written: {error.strerror or type(error).__name__}. "
                    f"{remedy}, or change the destination's `path`, and run again."
                ) from error

    def _open(self) -> FileIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = not self._path.exists()
        # Unbuffered: what could not be written must not be written later after all.
        file = FileIO(self._path, "a+")
        try:
            if not self._append:
                file.truncate(0)
            elif new:
                sync_folder(self._path.parent)
        except OSError:
            file.close()
            raise
        self._file = file
        return file

    def _write(self, body: bytes) -> None:
        file = self._file or self._open()
        with _locked(file):
            whole = self._end_lines(file)
            with _or_cut_back(file, whole):
                _write_all(file, body)
                if self._append:
                    os.fsync(file.fileno())

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _end_lines(self, file: FileIO) -> int:
        """Leave whole lines only; where they end."""
        size = file.seek(0, os.SEEK_END)
        if not size or _read(file, size - 1, size) == b"\n":
            return size
        # One byte more than a payload: the end of the line before it.
        start = max(0, size - self._line_bytes - 1)
        before, newline, last = _read(file, start, size).rpartition(b"\n")
        del before
        if (newline or not start) and _is_json(last):
            with _or_cut_back(file, size):
                _write_all(file, b"\n")
            return size + 1
        if newline and last.startswith(b"{"):
            return file.truncate(size - len(last))
        raise DestinationRefused(
            f"{self._path} is not a file of JSON lines: it ends in something else. Nothing was "
            "changed. Move it away or change the destination's `path`, and run again."
        )


async def _to_the_end(work: Callable[..., object], *arguments: bytes) -> None:
    """Work in a thread. Cancelling waits for it: nobody else may begin before it has ended."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        task.exception()  # seen: the cancellation is what counts
        raise


@contextmanager
def _locked(file: FileIO) -> Iterator[None]:
    """Nobody else writes to it meanwhile, in this process or another."""
    if sys.platform == "win32":  # pragma: no cover - there, one sync at a time is up to the user
        yield
    else:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def _or_cut_back(file: FileIO, size: int) -> Iterator[None]:
    """A write that leaves nothing of itself when it fails."""
    try:
        yield
    except OSError:
        with suppress(OSError):  # then the next write does it
            file.truncate(size)
        raise


def _read(file: FileIO, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(stop - start) or b""


def _write_all(file: FileIO, body: bytes) -> None:
    left = memoryview(body)
    while left:
        left = left[file.write(left) :]


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """A new file outlives a power cut once its folder is on the disk too."""
    if sys.platform == "win32":  # pragma: no cover - folders can't be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
