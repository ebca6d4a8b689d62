"""What `retl doctor` says of the spool: whether it can be used, and what was left there.

Changes nothing: a folder that is not there yet is not made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from pipeline.checkpoint.places import is_made
from pipeline.config import Config
from pipeline.errors import ConfigError, PipelineError
from pipeline.findings import Finding, Outcome, failed
from pipeline.model import Reading
from pipeline.source.spool.leftovers import Leftover
from pipeline.source.spool.source import place_of
from pipeline.wiring.spooling import spool_leftovers, spool_parent, unfinished_readings
from pipeline.wiring.state import existing, open_store

_SPOOL = "spool"


def spool_findings(config: Config, names: Sequence[str]) -> list[Finding]:
    """Of these syncs' spools. Blocking."""
    try:
        unfinished = _unfinished(config)
    except PipelineError:  # which the state has a finding of
        unfinished = None
    found = list(_elsewhere(config, unfinished or {}))
    if config.spool.dir is None:
        return found
    found.append(_writable(config, names))
    if unfinished is not None:
        found += _left(spool_leftovers(config, unfinished))
    return found


def _unfinished(config: Config) -> Mapping[str, Reading]:
    if not is_made(config.state_url):
        return {}
    with closing(open_store(config)) as store:
        return unfinished_readings(store)


def _writable(config: Config, names: Sequence[str]) -> Finding:
    """Whether the folders can be written, and have the room that they may take."""
    root = Path(config.resolve(config.spool.dir or ""))
    for path in (root, *(spool_parent(config, name) or root for name in names)):
        folder = existing(path)
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            what = f"{path} can't be written. Give `spool.dir` a folder that this user may write."
            return failed(_SPOOL, "writable", ConfigError(what))
    room = shutil.disk_usage(existing(root)).free
    low = room < config.spool.max_bytes
    return Finding(
        about=_SPOOL,
        check="writable",
        outcome=Outcome.WARNING if low else Outcome.OK,
        what=f"{root} can be written, and has {_size(room)} free",
        remedy="Less than `spool.max_bytes`: lower that, or make room." if low else "",
    )


def _left(found: Sequence[Leftover]) -> Iterator[Finding]:
    """Of rows that no run goes on with."""
    ours = [one for one in found if one.ours]
    if ours:
        what = f"{_size(sum(one.nbytes for one in ours))} of runs that nothing goes on with"
        yield Finding(
            about=_SPOOL,
            check="leftovers",
            outcome=Outcome.OK,
            what=f"{what}; the next run removes them",
        )
    for one in found:
        if not one.ours:
            yield Finding(
                about=_SPOOL,
                check="leftovers",
                outcome=Outcome.WARNING,
                what=f"{one.path} holds {_size(one.nbytes)} of another state, a week old",
                remedy="It holds rows: delete it, if no project uses that state any more.",
            )


def _elsewhere(config: Config, unfinished: Mapping[str, Reading]) -> Iterator[Finding]:
    """Of runs that spooled to where `spool.dir` does not point any more."""
    for name, reading in unfinished.items():
        place, parent = place_of(reading), spool_parent(config, name)
        if place is not None and place.parent != parent:
            yield Finding(
                about=f"sync {name}",
                check=_SPOOL,
                outcome=Outcome.WARNING,
                what=f"its unfinished run put rows on disk in {place}, where `spool.dir` does not "
                "point now",
                remedy="Set `spool.dir` back to go on from them. The run reads them again "
                "otherwise, and removes them when it has ended, if this machine has them.",
            )


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:,.1f} GB"
