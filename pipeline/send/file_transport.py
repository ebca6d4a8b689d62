"""Bodies appended to a file: the Transport of the file destination.

The file only ever holds whole lines: what a crash or a full disk left of one is cut off.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from pipeline.errors import DestinationError, DestinationRefused
from pipeline.model import Answer, Request

_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE})
_CHUNK = 65_536


class FileTransport:
    """A `Transport` to one file, in the order of the posts.

    append: keep what is there, and have every body on the disk before its post returns.
    """

    def __init__(self, path: Path, *, append: bool) -> None:
        self._path, self._append = path, append
        self._file: FileIO | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Make the file ready. Raises DestinationRefused when that can't be."""
        await self._in_turn(self._open)

    async def post(self, request: Request) -> Answer:
        """Write the body. Raises DestinationError: a full disk is not for retrying."""
        await self._in_turn(self._write, request.body)
        return Answer(status=200)

    async def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            await asyncio.to_thread(self._file.close)
            self._file = None

    async def _in_turn(self, work: Callable[..., object], *arguments: bytes) -> None:
        async with self._turn:
            try:
                await asyncio.to_thread(work, *arguments)
            except OSError as error:
                kind = DestinationError if error.errno in _PASSING else DestinationRefused
                raise kind(
                    f"{self._path} can't be written: {error.strerror}. Make room or change the "
                    "destination's path, and run again."
                ) from error

    def _open(self) -> FileIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        mode = "r+" if self._append and self._path.exists() else "w+"
        # Unbuffered: what could not be written must not be written later after all.
        file = FileIO(self._path, mode)
        file.seek(_end_of_lines(file))
        file.truncate()
        self._file = file
        return file

    def _write(self, body: bytes) -> None:
        file = self._file or self._open()
        whole = file.tell()
        try:
            left = memoryview(body)
            while left:
                left = left[file.write(left) :]
            if self._append:
                os.fsync(file.fileno())
        except OSError:
            file.truncate(whole)
            file.seek(whole)
            raise


def _end_of_lines(file: FileIO) -> int:
    """Where the last whole line ends."""
    at = file.seek(0, os.SEEK_END)
    while at > 0:
        start = max(0, at - _CHUNK)
        file.seek(start)
        line = file.read(at - start).rfind(b"\n")
        if line >= 0:
            return start + line + 1
        at = start
    return 0
