"""Dead letters sent again, out of a configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import replace

from pydantic import ValidationError

from pipeline.config import Config, FileDestination
from pipeline.errors import ConfigError
from pipeline.events import Event
from pipeline.model import Result
from pipeline.ports import LetterFilter, Observer, Obstacle, ReplayCount, Store
from pipeline.run.replay import ReplayParts, replay
from pipeline.run.replay_report import Replayed, ReplayReport
from pipeline.wiring.routes import open_route
from pipeline.wiring.state import open_store


def _unheard(_event: Event) -> None:
    """The observer of nobody: a replayed letter was counted when it was read."""


async def replay_letters(
    config: Config,
    which: LetterFilter,
    *,
    most: int | None = None,
    one_by_one: bool = False,
    dry_run: bool = False,
    to: str | None = None,
    observer: Observer = _unheard,
    stop: asyncio.Event | None = None,
) -> list[ReplayReport]:
    """Send dead letters again, one sync after another. What goes wrong is in the reports.

    most: so many at most. one_by_one: each in a request of its own. dry_run: only count.
    to: a file or the URI of a folder that gets them as NDJSON, instead of their destinations.
    observer: hears of the requests; there are no events for the rows, so that counts stay true.
    stop: once set, what is in flight is settled, and the rest is left as it is.
    Raises StateError when the state can't be opened, ConfigError for a bad `to`.
    """
    stop = stop or asyncio.Event()
    with closing(await asyncio.to_thread(open_store, config)) as store:
        counts = await asyncio.to_thread(store.replay_counts, which)
        if to is not None:
            config = _redirected(config, {count.destination for count in counts}, to)
        reports: list[ReplayReport] = []
        for sync in dict.fromkeys(count.sync for count in counts):
            if stop.is_set():
                break
            tallies = _tallies(config, [count for count in counts if count.sync == sync])
            if dry_run or not any(tally.letters for tally in tallies.values()):
                report = ReplayReport(
                    sync=sync, result=Result.COMPLETE, seconds=0.0, destinations=tallies
                )
            else:
                report = await _replay_one(
                    config, replace(which, sync=sync), store, tallies,
                    most=most, one_by_one=one_by_one, observer=observer, stop=stop,
                )  # fmt: skip
            reports.append(report)
            if most is not None:
                most -= sum(one.delivered + one.rejected for one in tallies.values())
                if most <= 0:
                    break
    return reports


async def _replay_one(
    config: Config,
    which: LetterFilter,
    store: Store,
    tallies: dict[str, Replayed],
    *,
    most: int | None,
    one_by_one: bool,
    observer: Observer,
    stop: asyncio.Event,
) -> ReplayReport:
    sync = which.sync or ""
    async with AsyncExitStack() as stack:
        routes = {
            name: await stack.enter_async_context(open_route(config, sync, name, None, observer))
            for name, tally in tallies.items()
            if tally.letters
        }
        parts = ReplayParts(
            sync=sync,
            which=which,
            routes=routes,
            tallies=tallies,
            store=store,
            buffer_bytes=config.send.buffer_bytes,
            drain=config.drain,
            most=most,
            one_by_one=one_by_one,
        )
        return await replay(parts, stop)


def _tallies(config: Config, counts: Sequence[ReplayCount]) -> dict[str, Replayed]:
    """By destination: what can be replayed, and what can't and why."""
    tallies: dict[str, Replayed] = {}
    for count in counts:
        tally = tallies.setdefault(count.destination, Replayed())
        obstacle = count.obstacle
        if obstacle is None and count.destination not in config.destinations:
            obstacle = Obstacle.NO_DESTINATION
        if obstacle is None:
            tally.letters += count.letters
        else:
            tally.left[obstacle] += count.letters
    return tallies


def _redirected(config: Config, names: Collection[str], to: str) -> Config:
    """The same, with a file in the place of these destinations."""
    try:
        file = FileDestination(type="file", path=to)
    except ValidationError as error:
        raise ConfigError(f"The path can't be used. {error.errors()[0]['msg']}") from error
    return config.model_copy(
        update={"destinations": {**config.destinations, **dict.fromkeys(names, file)}}
    )
