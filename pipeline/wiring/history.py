"""What stays of a run when it has ended: its report, and a history that does not grow for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from pipeline.config import Config
from pipeline.errors import PipelineError, StateError
from pipeline.events import HistoryPruned, Warned
from pipeline.ports import Observer, Pruned, Store
from pipeline.run.report import RunReport

# The next sync waits for it, and so does whoever sent a signal; the rest is for the next run.
_PRUNE_SECONDS = 5.0


async def keep_history(
    store: Store, config: Config, report: RunReport, observer: Observer, stop: asyncio.Event
) -> None:
    """Keep the report of a run that has ended, and delete what is older than `retention`.

    Neither changes how the run ended: what fails is warned of.
    """
    if isinstance(report.error, StateError):  # whatever it is, it would be so again
        return
    try:
        if report.run:
            await asyncio.to_thread(store.keep_report, report.run, report.as_dict())
        if stop.is_set():
            return
        pruned = await asyncio.to_thread(prune, store, config)
    except PipelineError as error:
        text = f"The run has ended, but its history could not be kept: {error}"
        observer(Warned(sync=report.sync, destination="", text=text))
        return
    if pruned != Pruned():
        observer(
            HistoryPruned(
                sync=report.sync,
                destination="",
                runs=pruned.runs,
                dead_letters=pruned.dead_letters,
            )
        )


def prune(
    store: Store,
    config: Config,
    *,
    seconds: float = _PRUNE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Pruned:
    """Delete what is older than `retention`, step by step, for about so many seconds at most.

    Blocking. Raises StateError.
    """
    kept, total, until = config.retention, Pruned(), clock() + seconds
    while True:
        step = store.prune(runs=kept.runs, dead_letters=kept.dead_letters)
        total += step
        if step == Pruned() or clock() >= until:
            return total
