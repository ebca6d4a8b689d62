"""The spool between a source and its run, the pace it is estimated by, and what runs left there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.events import Warned
from pipeline.model import Reading
from pipeline.ports import Observer, Source, Store
from pipeline.source.bigquery import BigQuery
from pipeline.source.outlast import Pace
from pipeline.source.spool.folder import key_of
from pipeline.source.spool.leftovers import Leftover, leftovers, remove
from pipeline.source.spool.source import Disk, Spool, place_of
from pipeline.source.table import BigQueryTable
from pipeline.wiring.routes import make_destination
from pipeline.wiring.sources import streams_of


def make_pace(config: Config, target: str) -> Pace:
    """The most that a destination takes, by its own limits and the configured ones."""
    limits, rate = make_destination(config, target).limits, config.send.rate_limit
    return Pace(
        requests_per_second=rate.requests_per_second or limits.requests_per_second,
        rows_per_second=rate.rows_per_second,
        batch_rows=limits.batch_rows,
        batch_bytes=limits.batch_bytes,
    )


def make_spool(config: Config, name: str, source: Source, observer: Observer) -> Spool | None:
    """A spool around the source of a sync; None for a source that never expires.

    None for a shard, too: the folder of one holds all streams, which are not one process's.
    """
    if not isinstance(source, BigQuery | BigQueryTable):
        return None
    if config.shard.of > 1:
        if config.spool.dir is not None:
            text = (
                "`spool.dir` is not used: the rows of a run that several shards share are not "
                "spooled. If it outlasts the read session, let one process run it."
            )
            observer(Warned(sync=name, destination="", text=text))
        return None
    return Spool(
        source,
        sync=name,
        disk=_disk(config, name),
        paces=[make_pace(config, target) for target in config.syncs[name].destinations],
        streams=streams_of(config, config.syncs[name]),
        observer=observer,
    )


def spool_parent(config: Config, name: str) -> Path | None:
    """Where the rows of a sync are spooled; None: nowhere."""
    root = _root(config)
    return None if root is None else root / f"{name}-{_state_hash(config)}"


def spool_leftovers(config: Config, unfinished: Mapping[str, Reading]) -> list[Leftover]:
    """What lies in the spool's directory and no run goes on with. Blocking.

    unfinished: as `unfinished_readings` tells.
    """
    root = _root(config)
    if root is None:
        return []
    kept = {key_of(reading): sync for sync, reading in unfinished.items()}
    return leftovers(root, _state_hash(config), kept, config.syncs)


def unfinished_readings(store: Store) -> dict[str, Reading]:
    """Sync -> what the run reads that its next one goes on with. Blocking. Raises StateError."""
    found = {}
    for state in store.syncs():
        detail = store.run(state.unfinished) if state.unfinished else None
        if detail is not None and detail.reading is not None:
            found[state.name] = detail.reading
    return found


def tidy(config: Config, name: str, store: Store, before: Reading | None = None) -> Reading | None:
    """Remove what was spooled and no run goes on with; what the sync's next run goes on with.

    Blocking. before: what it was then before the last run; that is removed wherever it was
    spooled. What fails is left for the next time.
    """
    with suppress(PipelineError):
        unfinished = unfinished_readings(store)
        found = [one for one in spool_leftovers(config, unfinished) if one.ours]
        place = None if before is None else place_of(before)
        if place is not None and unfinished.get(name) != before:
            found.append(Leftover(path=place, nbytes=0, ours=True))
        for leftover in found:
            remove(leftover)
        return unfinished.get(name)
    return None


def _disk(config: Config, name: str) -> Disk | None:
    parent = spool_parent(config, name)
    if parent is None:
        return None
    return Disk(
        parent=parent, max_bytes=config.spool.max_bytes, always=config.spool.when == "always"
    )


def _root(config: Config) -> Path | None:
    directory = config.spool.dir
    return None if directory is None else Path(config.resolve(directory)).absolute()


def _state_hash(config: Config) -> str:
    """Projects may share a directory and have syncs of one name: each state has its own."""
    return hashlib.sha256(config.state_place.encode()).hexdigest()[:8]
