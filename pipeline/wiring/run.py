"""One run of a sync, out of its configuration."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, closing
from pathlib import Path

from pipeline.checkpoint.ledger import Ledger
from pipeline.checkpoint.scratch import ScratchStore
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.events import Event, Warned
from pipeline.model import Reading, Result
from pipeline.ports import Observer, RunStore, Store
from pipeline.run.engine import execute
from pipeline.run.parts import RunParts
from pipeline.run.report import RunReport
from pipeline.run.route import LaneLimits
from pipeline.wiring.encoders import make_encoder
from pipeline.wiring.history import keep_history
from pipeline.wiring.identity import fingerprint, sync_named
from pipeline.wiring.routes import open_route
from pipeline.wiring.sources import open_source, streams_of
from pipeline.wiring.spooling import make_spool, tidy
from pipeline.wiring.state import next_window, open_store, vanishing


def _unheard(_event: Event) -> None:
    """The observer of nobody."""


async def run_sync(
    config: Config,
    name: str,
    *,
    full: bool = False,
    dry_run: Path | None = None,
    observer: Observer = _unheard,
    stop: asyncio.Event | None = None,
) -> RunReport:
    """Run a sync once. What goes wrong in the run is in the report, not raised.

    full: everything instead of what changed. dry_run: payloads go to this file, one per line,
    instead of to the destinations, and the state is left alone. observer: hears every event.
    stop: once set, the run drains and ends as interrupted.
    Raises ConfigError for an unknown sync, or a dry run of several shards; StateError when the
    state can't be opened.
    """
    sync = sync_named(config, name)
    stop = stop or asyncio.Event()
    if dry_run is not None and config.shard.of > 1:
        raise ConfigError(
            "A dry run is one process's: each would read everything. Unset RETL_SHARDS."
        )
    async with AsyncExitStack() as stack:
        store: RunStore
        kept: Store | None = None
        before: Reading | None = None
        if dry_run is not None:
            store = ScratchStore(await asyncio.to_thread(next_window, config, name))
        else:
            store = kept = stack.enter_context(closing(await asyncio.to_thread(open_store, config)))
            text = vanishing(config, os.environ)
            if text:
                observer(Warned(sync=name, destination="", text=text))
            before = await asyncio.to_thread(tidy, config, name, kept)
        source = await stack.enter_async_context(
            open_source(config, name, sync, kept=dry_run is None)
        )
        spool = make_spool(config, name, source, observer) if dry_run is None else None
        if spool is not None:
            stack.push_async_callback(spool.close)
        routes = [
            await stack.enter_async_context(open_route(config, name, target, dry_run, observer))
            for target in (sync.destinations if dry_run is None else sync.destinations[:1])
        ]
        parts = RunParts(
            sync=name,
            fingerprint=fingerprint(config, sync),
            full=full,
            source=spool or source,
            routes=routes,
            encoder=lambda route, window, schema: make_encoder(
                config, name, route.destination, window, schema
            ),
            ledger=Ledger,
            store=store,
            limits=LaneLimits(
                buffer_bytes=config.send.buffer_bytes,
                streams=streams_of(config, sync),
                drain=config.drain,
                tolerates=sync.tolerates,
            ),
            threads=config.read.threads or os.cpu_count() or 1,
            observer=observer,
            shard=config.shard,
        )
        report = await execute(parts, stop)
        if spool is not None and report.result is Result.COMPLETE:
            await spool.discard()
        if kept is not None:
            await asyncio.to_thread(tidy, config, name, kept, before)
            await keep_history(kept, config, report, observer, stop)
        return report
