"""Dead letters to one file, NDJSON or Parquet, on this machine or by a `pyarrow.fs` URI. Blocking.

A page at a time, so memory does not grow with their number. The file is there under its name with
all of them, or not at all. It holds row content: on this machine only its owner may read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from secrets import token_hex
from typing import Protocol

import orjson
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipeline.errors import ConfigError
from pipeline.ports import DeadLetterRecord, LetterFilter, LetterStore

_NAME = "dead-letters"
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("run", pa.string(), nullable=False),
        pa.field("sync", pa.string(), nullable=False),
        pa.field("destination", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("stream", pa.int32(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("kept", pa.string(), nullable=False),
        pa.field("payload", pa.string()),
    ]
)


class Format(StrEnum):
    """Of the file."""

    NDJSON = "ndjson"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written. sealed: letters without their payload, for want of its key."""

    letters: int
    sealed: int
    path: str


class _Bytes(Protocol):
    def write(self, data: bytes, /) -> object: ...


def export(
    store: LetterStore, which: LetterFilter, to: str, form: Format, *, overwrite: bool = False
) -> Exported:
    """Write the letters to `to`: a path or a URI, of a file, or of a folder if it ends in `/`.

    Raises ConfigError when it can't be written, or is there already and may not be overwritten.
    """
    try:
        system, path = _opened(to)
        if path.endswith("/") or system.get_file_info(path).type is pafs.FileType.Directory:
            path = f"{path.rstrip('/')}/{_NAME}.{form}"
        there = system.get_file_info(path).type is not pafs.FileType.NotFound
        if there and not overwrite:
            raise ConfigError(f"{path} is there already: --force overwrites it.")
        with _writing(system, path) as sink:
            write = _parquet if form is Format.PARQUET else _ndjson
            letters, sealed = write(sink, _pages(store, which))
    except (OSError, pa.ArrowInvalid) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"The dead letters can't be written there: {said} Give another path."
        ) from error
    return Exported(letters=letters, sealed=sealed, path=path)


def _pages(store: LetterStore, which: LetterFilter) -> Iterator[Sequence[DeadLetterRecord]]:
    after = 0
    while page := store.dead_letter_page(which, after=after):
        after = page[-1].id
        yield page


def _opened(to: str) -> tuple[pafs.FileSystem, str]:
    if "://" in to:
        system, path = pafs.FileSystem.from_uri(to)
        folder = to.endswith("/") and not path.endswith("/")
        return system, f"{path}/" if folder else path
    absolute = str(Path(to).absolute())
    return pafs.LocalFileSystem(), f"{absolute}/" if to.endswith("/") else absolute


@contextmanager
def _writing(system: pafs.FileSystem, path: str) -> Iterator[_Bytes]:
    """A file that gets its name when the block has ended well, and does not stay otherwise."""
    if isinstance(system, pafs.LocalFileSystem):
        with _writing_here(Path(path)) as file:
            yield file
        return
    stream = system.open_output_stream(path)
    try:
        yield stream
        stream.close()
    except BaseException:
        # An object store shows what was written once it is closed: take it away again.
        with suppress(OSError):
            stream.close()
        with suppress(OSError):
            system.delete_file(path)
        raise


@contextmanager
def _writing_here(path: Path) -> Iterator[_Bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{token_hex(4)}")
    number = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


def _ndjson(sink: _Bytes, pages: Iterable[Sequence[DeadLetterRecord]]) -> tuple[int, int]:
    letters = sealed = 0
    for page in pages:
        lines = [orjson.dumps(as_dict(record), option=orjson.OPT_APPEND_NEWLINE) for record in page]
        sink.write(b"".join(lines))
        letters += len(page)
        sealed += sum(record.sealed for record in page)
    return letters, sealed


def _parquet(sink: _Bytes, pages: Iterable[Sequence[DeadLetterRecord]]) -> tuple[int, int]:
    letters = sealed = 0
    with pq.ParquetWriter(sink, _SCHEMA, compression="zstd") as writer:
        for page in pages:
            writer.write_table(pa.Table.from_pylist([_typed(one) for one in page], _SCHEMA))
            letters += len(page)
            sealed += sum(record.sealed for record in page)
    return letters, sealed


def as_dict(record: DeadLetterRecord) -> dict[str, object]:
    """For orjson, with the payload as JSON; null when there is none that can be read."""
    return {**_facts(record), "payload": ready_payload(record)}


def ready_payload(record: DeadLetterRecord) -> object:
    """The payload for orjson: JSON as it is, text that is none as text, None when there is none."""
    payload = record.letter.payload
    if not payload:
        return None
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        return payload.decode(errors="replace")
    return orjson.Fragment(payload)


def _facts(record: DeadLetterRecord) -> dict[str, object]:
    letter = record.letter
    return {
        "id": record.id,
        "run": record.run,
        "sync": record.sync,
        "destination": record.destination,
        "at": record.at,
        "stream": letter.stream,
        "row": letter.row,
        "reason": letter.reason,
        "message": letter.message,
        "kept": record.kept.value,
    }


def _typed(record: DeadLetterRecord) -> dict[str, object]:
    payload = record.letter.payload.decode(errors="replace")
    return {**_facts(record), "at": int(record.at * 1_000_000), "payload": payload or None}
