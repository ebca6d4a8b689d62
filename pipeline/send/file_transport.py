"""Bodies appended to a file: the Transport of the file destination."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import DestinationError
from pipeline.model import Answer, Request


class FileTransport:
    """A `Transport` to one file, in the order of the posts; `append` keeps what is there.

    What was posted has reached the operating system when post returns, and the disk after close.
    """

    def __init__(self, path: Path, *, append: bool) -> None:
        self._path, self._append = path, append
        self._file: BinaryIO | None = None
        self._turn = asyncio.Lock()

    async def post(self, request: Request) -> Answer:
        """Write the body. Raises DestinationError: a full disk is not for retrying."""
        async with self._turn:
            try:
                await asyncio.to_thread(self._write, request.body)
            except OSError as error:
                raise DestinationError(
                    f"{self._path} can't be written: {error.strerror}. Make room or change the "
                    "destination's path, and run again."
                ) from error
        return Answer(status=200)

    async def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            await asyncio.to_thread(self._file.close)
            self._file = None

    def _write(self, body: bytes) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab" if self._append else "wb")
        self._file.write(body)
        self._file.flush()
