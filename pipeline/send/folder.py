"""A folder that takes whole files: of this machine, or of an object store by its URI. Blocking.

A file is there under its name with all of its bytes, or not at all. An object store shows an
object once it is complete; elsewhere a file gets its name last. One of the same name is replaced.
"""

from __future__ import annotations

import os
from pathlib import Path
from secrets import token_hex

import pyarrow as pa
import pyarrow.fs as pafs

from pipeline.send.file_transport import sync_folder

# pyarrow's names of the file systems that show what is written only when it is complete.
_OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})


class Folder:
    """path: of this machine, or a `pyarrow.fs` URI (gs://, s3://, abfs://).

    Nothing is touched before the first use. Methods raise OSError, and ValueError for a URI that
    this pyarrow can't open.
    """

    def __init__(self, path: str) -> None:
        self._given = path
        self._opened: tuple[pafs.FileSystem, str] | None = None

    def put(self, name: str, data: bytes | pa.Buffer) -> None:
        """Write a file; on return it is durable."""
        store, path = self._open()
        if isinstance(store, pafs.LocalFileSystem):
            _put_local(Path(path), name, data)
        elif store.type_name in _OBJECT_STORES:
            _write(store, f"{path}/{name}", data)
        else:
            store.create_dir(path, recursive=True)
            hidden = f"{path}/.{name}.{token_hex(4)}"
            _write(store, hidden, data)
            store.move(hidden, f"{path}/{name}")

    def look(self) -> None:
        """Ask for the folder, to see whether the way there is open; it need not exist."""
        store, path = self._open()
        store.get_file_info(path)

    def _open(self) -> tuple[pafs.FileSystem, str]:
        if self._opened is None:
            if "://" in self._given:
                store, path = pafs.FileSystem.from_uri(self._given)
            else:
                store, path = pafs.LocalFileSystem(), self._given
            self._opened = store, str(path).rstrip("/")
        return self._opened


def _write(store: pafs.FileSystem, path: str, data: bytes | pa.Buffer) -> None:
    # One buffer in one write: nothing of ours can fail between the opening and the close.
    with store.open_output_stream(path) as stream:
        stream.write(data)


def _put_local(folder: Path, name: str, data: bytes | pa.Buffer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Two processes that write the same file write the same bytes, each to a name of its own.
    hidden = folder / f".{name}.{token_hex(4)}"
    try:
        with hidden.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(folder / name)
    except OSError:
        hidden.unlink(missing_ok=True)
        raise
    sync_folder(folder)
