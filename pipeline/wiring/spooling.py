"""The spool between a source and its run, and the pace it is estimated by."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.config import Config
from pipeline.ports import Observer, Source
from pipeline.source.bigquery import BigQuery
from pipeline.source.outlast import Pace
from pipeline.source.spool.source import Disk, Spool
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
    """A spool around the source of a sync; None for a source that never expires."""
    if not isinstance(source, BigQuery | BigQueryTable):
        return None
    return Spool(
        source,
        sync=name,
        disk=_disk(config, name),
        paces=[make_pace(config, target) for target in config.syncs[name].destinations],
        streams=streams_of(config, config.syncs[name]),
        observer=observer,
    )


def _disk(config: Config, name: str) -> Disk | None:
    spool = config.spool
    if spool.dir is None:
        return None
    # Projects may share a directory and have syncs of one name: each state has its own.
    state = hashlib.sha256(config.state_place.encode()).hexdigest()[:8]
    return Disk(
        parent=Path(config.resolve(spool.dir)) / f"{name}-{state}",
        max_bytes=spool.max_bytes,
        always=spool.when == "always",
    )
