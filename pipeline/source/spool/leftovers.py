"""Folders of Readings that no run goes on with: found, measured and removed. Blocking.

A killed process leaves its folder, for the next run of the sync to go on from. Where no run comes
for it (its run was given up, its sync was renamed or removed) it would hold rows for ever. What
another state spooled may be in the same directory; nobody here knows its runs, so it is only told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.source.spool.folder import readings_in, remove_unless_used

# A week: a sync that is not in the configuration may be so by mistake, or be another project's.
_KEPT_SECONDS = 7 * 86_400.0
# Of a state, in the names of its folders.
_STATE_DIGITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A folder that no run of ours will go on with.

    ours: it is of this state, so the next run removes it.
    """

    path: Path
    nbytes: int
    ours: bool


def leftovers(
    root: Path,
    state: str,
    unfinished: Mapping[str, str],
    syncs: Mapping[str, object],
    clock: Callable[[], float] = time.time,
) -> list[Leftover]:
    """In the spool's directory, by path.

    state: the hash that ends the names of its folders. unfinished: key of a Reading -> the sync
    whose run will go on with it. syncs: those of the configuration, by name.
    """
    found = []
    for parent in _folders(root):
        name, _, owner = parent.name.rpartition("-")
        ours = owner == state
        if not name or len(owner) != _STATE_DIGITS:  # not made by us
            continue
        for path in readings_in(parent):
            sync = unfinished.get(path.name)
            over = ours and sync is None
            unknown = not ours or sync not in syncs
            if over or (unknown and clock() - _touched(path) > _KEPT_SECONDS):
                found.append(Leftover(path=path, nbytes=_size(path), ours=ours))
    return sorted(found, key=lambda one: one.path)


def remove(found: Leftover) -> None:
    """Unless a process uses it."""
    if remove_unless_used(found.path):
        with suppress(OSError):  # not empty
            found.path.parent.rmdir()


def _folders(root: Path) -> list[Path]:
    with suppress(OSError):
        return [
            Path(entry.path) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)
        ]
    return []


def _touched(path: Path) -> float:
    """When files in there changed last, in Unix seconds; now, if that can't be told."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _size(path: Path) -> int:
    """Bytes of the files in there."""
    total = 0
    with suppress(OSError):
        for entry in os.scandir(path):
            total += entry.stat(follow_symlinks=False).st_size
    return total
