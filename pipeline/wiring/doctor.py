"""Every check of `retl doctor`, one after the other: state, sources, destinations.

Changes nothing: a state that is not there yet is not made, no person's data is sent. BigQuery is
asked for dry runs and for `SELECT 1`, which scans nothing; a destination gets an empty batch.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from secrets import token_hex
from typing import Any

from pipeline.checkpoint.places import is_made
from pipeline.checkpoint.volume import ephemeral, in_container
from pipeline.config import BigQuerySource, Config, SyncConfig
from pipeline.errors import PipelineError, UnusableState
from pipeline.findings import Finding, Outcome, failed, skipped
from pipeline.model import Window
from pipeline.source.preflight import JOBS_CREATE, SESSIONS_CREATE, TABLES_GET_DATA, Preflight
from pipeline.source.threads import in_daemon
from pipeline.wiring.probe import probe
from pipeline.wiring.sources import make_connection, open_source
from pipeline.wiring.spool_doctor import spool_findings
from pipeline.wiring.state import existing, file_system_below, next_window, open_store

_FIRST = Window(start=0, sequence=1)
# Bytes; with less, a run of many dead letters may fill the disk.
_ROOM = 10**9
_MOUNTS = Path("/proc/self/mounts")
_ONE = "SELECT 1 AS one"
_STATE = "state"


async def examine(config: Config, names: Sequence[str]) -> AsyncIterator[Finding]:
    """All checks that the syncs of these names need, each as soon as it is done."""
    for finding in await asyncio.to_thread(state_findings, config, os.environ):
        yield finding
    syncs = {name: config.syncs[name] for name in names}
    for finding in await asyncio.to_thread(spool_findings, config, names):
        yield finding
    for source in dict.fromkeys(sync.source for sync in syncs.values()):
        async for finding in _source(config, source, syncs):
            yield finding
    used = dict.fromkeys(name for sync in syncs.values() for name in sync.destinations)
    for destination in used:
        async for finding in probe(config, destination):
            yield finding


# ------------------------------------------------------------------------------------- state


def state_findings(
    config: Config,
    env: Mapping[str, str],
    *,
    mounts: Callable[[], str] = lambda: _MOUNTS.read_text(encoding="utf-8"),
    contained: Callable[[Mapping[str, str]], bool] = in_container,
    free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
) -> list[Finding]:
    """Whether the state can be used, has room, and lasts. Blocking."""
    path = config.state_path
    try:
        found = [_openable(config, path)]
    except PipelineError as error:
        return [failed(_STATE, "open", error)]
    if path is None:  # a server's disks are not ours to look at
        return found
    room = free(existing(path))
    low = room < _ROOM
    found.append(
        Finding(
            about=_STATE,
            check="room",
            outcome=Outcome.WARNING if low else Outcome.OK,
            what=f"{room / 1e9:,.1f} GB free",
            remedy="Dead letters need room: free some, or move `state`." if low else "",
        )
    )
    kind = file_system_below(path, env, mounts=mounts, contained=contained)
    if kind is not None:
        place = ephemeral(kind)
        found.append(
            Finding(
                about=_STATE,
                check="volume",
                outcome=Outcome.WARNING if place else Outcome.OK,
                what=f"{path} is on {place or kind or 'a volume'}"
                + (", which ends with the container" if place else ""),
                remedy="Mount a persistent volume there (see deploy/k8s): without its state the "
                "next run sends everything again."
                if place
                else "",
            )
        )
    return found


def _openable(config: Config, path: Path | None) -> Finding:
    name = path or config.state_place
    if is_made(config.state_url):
        with closing(open_store(config)):
            what = f"{name} can be read and written"
    else:
        if path is not None:
            _refuse_if_unmakeable(path)
        what = f"{name} is not there yet; the first run makes it"
    return Finding(about=_STATE, check="open", outcome=Outcome.OK, what=what)


def _refuse_if_unmakeable(path: Path) -> None:
    folder = existing(path)
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise UnusableState(
            f"State {path} can't be made: this user may not write {folder}. Give `state` a "
            "path in a folder that this user may write."
        )


# ----------------------------------------------------------------------------------- sources


async def _source(
    config: Config, source: str, syncs: Mapping[str, SyncConfig]
) -> AsyncIterator[Finding]:
    mine = {name: sync for name, sync in syncs.items() if sync.source == source}
    settings, about = config.sources[source], f"source {source}"
    if not isinstance(settings, BigQuerySource):
        yield await _files(config, about, mine)
        return
    preflight = Preflight(make_connection(settings), about=about)
    left = ["clock", "token", JOBS_CREATE, SESSIONS_CREATE, *(TABLES_GET_DATA for _ in mine)]
    for step in (preflight.credentials, preflight.clock, preflight.token):
        finding = await in_daemon(step)
        yield finding
        if finding.outcome is Outcome.FAILED:
            for check in left:
                yield skipped(about, check, finding.check)
            return
        left = [check for check in left if check != finding.check]
    name, sync = next(iter(mine.items()))
    finding = await _create_job(config, name, sync, preflight)
    yield finding
    if finding.outcome is Outcome.FAILED:
        yield skipped(about, SESSIONS_CREATE, JOBS_CREATE)
        for name in mine:
            yield skipped(f"sync {name}", TABLES_GET_DATA, JOBS_CREATE)
        return
    yield await _read_session(config, name, sync, preflight)
    for name, sync in mine.items():
        yield await _query(config, name, sync, preflight)


async def _create_job(config: Config, name: str, sync: SyncConfig, preflight: Preflight) -> Finding:
    """A dry run takes the permission to create jobs, and costs nothing."""
    try:
        async with open_source(config, name, _asking(sync)) as source:
            await source.dry_run(_FIRST)
    except PipelineError as error:
        return preflight.failed(JOBS_CREATE, error)
    return preflight.allowed(JOBS_CREATE, "queries may run")


async def _read_session(
    config: Config, name: str, sync: SyncConfig, preflight: Preflight
) -> Finding:
    """A query that scans nothing, for its result is what a read session can be made of."""
    try:
        async with open_source(config, name, _asking(sync)) as source:
            table = await source.preview(_FIRST, 1, f"doctor-{token_hex(8)}")
    except PipelineError as error:
        return preflight.failed(SESSIONS_CREATE, error)
    return preflight.allowed(SESSIONS_CREATE, f"{table.num_rows} row came by the Storage Read API")


async def _query(config: Config, name: str, sync: SyncConfig, preflight: Preflight) -> Finding:
    about = f"sync {name}"
    try:
        window = await _window(config, name)
        async with open_source(config, name, sync) as source:
            scan = await source.dry_run(window)
    except PipelineError as error:
        return preflight.failed(TABLES_GET_DATA, error, about)
    what = f"its query may read its tables: {scan.bytes_processed:,} bytes"
    return preflight.allowed(TABLES_GET_DATA, what, about)


async def _window(config: Config, name: str) -> Window:
    """The next run's; the first one's when there is no state to look at."""
    try:
        return await asyncio.to_thread(next_window, config, name)
    except PipelineError:  # which has a finding of its own
        return _FIRST


def _asking(sync: SyncConfig) -> SyncConfig:
    """A sync of the same source that asks for one row of no table, and for nothing else."""
    kept = {"source", "call", "destinations"}
    plain: dict[str, Any] = {
        key: field.get_default(call_default_factory=True)
        for key, field in SyncConfig.model_fields.items()
        if key not in kept
    }
    return sync.model_copy(update=plain | {"query": _ONE})


async def _files(config: Config, about: str, syncs: Mapping[str, SyncConfig]) -> Finding:
    name, sync = next(iter(syncs.items()))
    try:
        async with open_source(config, name, sync) as source:
            scan = await source.dry_run(_FIRST)
    except PipelineError as error:
        return failed(about, "files", error)
    what = f"{scan.bytes_processed:,} bytes of files"
    return Finding(about=about, check="files", outcome=Outcome.OK, what=what)
