"""The directory of one Reading's spooled files. Blocking: call it in a thread.

    DIR/SYNC-STATE/READING/manifest.json, lock
        00003-000000000000-000000016384.arrow    rows of stream 3, from and to before
        00003-000000250000.end                   the stream has so many rows, all of them spooled

Files appear whole, by renaming, after they are on the disk. Names hold numbers only, and only the
owner may read. A Reading's folder is locked while its process lives: what is left of ended runs is
removed (see leftovers.py), what another process uses is not.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import xxhash

from pipeline.errors import StateError, UnusableState
from pipeline.model import Reading, Span

_FORMAT = 1
_FILE = re.compile(r"(\d{5})-(\d{12})-(\d{12})\.arrow", re.ASCII)
_END = re.compile(r"(\d{5})-(\d{12})\.end", re.ASCII)
_KEY = re.compile(r"[0-9a-f]{32}", re.ASCII)
_MANIFEST, _LOCK, _PART = "manifest.json", "lock", ".part"
# How long a process may take to open a folder that it made, in seconds.
_OPENING = 3600.0
_ERASURES = 10
# Full for now: errno says so for the disk, for a quota, and for a limit on file sizes.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# ENOENT: another run has just removed the folder, which was empty, as `check` itself does.
_PASSING = FULL | {errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file on disk: rows `first` to `end - 1` of a stream."""

    stream: int
    first: int
    end: int
    nbytes: int

    @property
    def span(self) -> Span:
        """Its rows."""
        return Span(stream=self.stream, first=self.first, rows=self.end - self.first)

    @property
    def name(self) -> str:
        """Its file's."""
        return f"{self.stream:05}-{self.first:012}-{self.end:012}.arrow"


def key_of(reading: Reading) -> str:
    """What tells a Reading from all others: a hash of its streams' names."""
    return xxhash.xxh3_128_hexdigest("\n".join(reading.streams).encode())


class Folder:
    """The files of one Reading, in `parent`, which belongs to one sync of one state."""

    def __init__(self, parent: Path, reading: Reading) -> None:
        self._parent, self._reading = parent, reading
        self.path = parent / key_of(reading)
        self._lock: int | None = None

    @property
    def exists(self) -> bool:
        """Whether an earlier process spooled this Reading."""
        return self._kept_format() == _FORMAT

    def open(self) -> None:
        """Make it, or take it over. Raises StateError when that can't be."""
        try:
            if self.path.exists() and not self.exists:  # torn, or of another version
                shutil.rmtree(self.path)
            for folder in (self._parent.parent, self._parent, self.path):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(self.path / _LOCK, fcntl.LOCK_SH)
            if not self.exists:
                manifest = {
                    "format": _FORMAT,
                    "streams": len(self._reading.streams),
                    "rows": self._reading.rows,
                    "expires": self._reading.expires,
                }
                self._put(_MANIFEST, [json.dumps(manifest).encode()])
        except OSError as error:
            raise _unusable(self._parent, error) from error

    def close(self) -> None:
        """Let others take it over; idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def scan(self) -> tuple[list[Stored], dict[int, int]]:
        """What is here: the whole files, and stream -> rows of those that ended.

        Removes what was being written when a process died.
        """
        files: list[Stored] = []
        ends: dict[int, int] = {}
        for entry in os.scandir(self.path):
            if found := _FILE.fullmatch(entry.name):
                stream, first, end = map(int, found.groups())
                nbytes = entry.stat().st_size
                files.append(Stored(stream=stream, first=first, end=end, nbytes=nbytes))
            elif found := _END.fullmatch(entry.name):
                ends[int(found[1])] = int(found[2])
            elif entry.name.endswith(_PART):
                Path(entry.path).unlink(missing_ok=True)
        return sorted(files, key=lambda file: (file.stream, file.first)), ends

    def write(self, file: Stored, pieces: Sequence[bytes | memoryview]) -> None:
        """Durable on return. Raises OSError, and then there is nothing."""
        self._put(file.name, pieces)

    def mark_end(self, stream: int, rows: int) -> None:
        """Note that a stream has no more rows than these. Raises OSError."""
        self._put(f"{stream:05}-{rows:012}.end", [])

    def read(self, file: Stored) -> bytes | None:
        """Its bytes; None when they can't be had."""
        try:
            return (self.path / file.name).read_bytes()
        except OSError:
            return None

    def delete(self, files: Sequence[Stored]) -> None:
        """Make room. What can't be deleted stays, and is found by the next scan."""
        for file in files:
            with suppress(OSError):
                (self.path / file.name).unlink(missing_ok=True)

    def remove(self) -> None:
        """All of it: the run is complete."""
        self.close()
        _erase(self.path)
        with suppress(OSError):  # not empty
            self._parent.rmdir()

    def remove_others(self) -> None:
        """What is left of other Readings of the sync, unless a process uses it."""
        for path in readings_in(self._parent):
            if path != self.path:
                remove_unless_used(path)

    def _kept_format(self) -> object:
        try:
            kept = json.loads((self.path / _MANIFEST).read_bytes())
        except (OSError, ValueError):
            return None
        return kept.get("format") if isinstance(kept, dict) else None

    def _put(self, name: str, pieces: Sequence[bytes | memoryview]) -> None:
        part = self.path / f"{name}.{secrets.token_hex(4)}{_PART}"
        try:
            _write(part, pieces)
            part.rename(self.path / name)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        _sync(self.path)


def check(parent: Path) -> None:
    """See whether a Reading could be spooled in there, and leave nothing behind.

    Raises UnusableState when it can't be written. A disk that is full now may have room later.
    """
    probe = parent / f"{secrets.token_hex(4)}{_PART}"
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(probe, [b"."])
    except OSError as error:
        if error.errno not in _PASSING:
            raise _unusable(parent, error) from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            parent.rmdir()


def readings_in(parent: Path) -> list[Path]:
    """The folders, named by their keys, of all Readings that were spooled in there.

    Not those that a process may be about to open.
    """
    with suppress(OSError):
        return [
            Path(entry.path)
            for entry in os.scandir(parent)
            if _KEY.fullmatch(entry.name)
            and entry.is_dir(follow_symlinks=False)
            and (
                Path(entry.path, _MANIFEST).is_file()
                or time.time() - entry.stat().st_mtime > _OPENING  # half removed
            )
        ]
    return []


def remove_unless_used(folder: Path) -> bool:
    """Whether it was removed; never while a process uses it."""
    with suppress(OSError):  # BlockingIOError: it is used
        lock = _locked(folder / _LOCK, fcntl.LOCK_EX)
        if lock is not None:
            _erase(folder)
            os.close(lock)
            return not folder.exists()
    return False


def _erase(folder: Path) -> None:
    """Remove it all. A thread whose write was given up may put one more file in there meanwhile."""
    for _ in range(_ERASURES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def _write(path: Path, pieces: Sequence[bytes | memoryview]) -> None:
    """A new file, on the disk."""
    with open(path, "xb", opener=_private) as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


def _sync(folder: Path) -> None:
    """Make a rename durable."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _locked(path: Path, how: int) -> int | None:
    """A descriptor that holds the lock; None where the file system knows none.

    Raises BlockingIOError when another process holds it.
    """
    opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(opened, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        raise
    except OSError:
        os.close(opened)
        return None
    return opened


def _unusable(parent: Path, error: OSError) -> StateError:
    kind = StateError if error.errno in _PASSING else UnusableState
    return kind(
        f"The spool folder {parent} can't be used: "
        f"{(error.strerror or type(error).__name__).lower()}. Set `spool.dir` (RETL_SPOOL_DIR) to "
        "a directory that this process may write, with room; or leave it out, and rows are not "
        "spooled."
    )
