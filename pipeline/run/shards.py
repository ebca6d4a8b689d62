"""What a process waits for that shares a Run with others: its shard, and somebody's start.

It asks the store, about once a second, and the store knows it all: nothing is said from process to
process.
"""

from __future__ import annotations

import asyncio

from pipeline.errors import ShardHeld
from pipeline.events import Waiting
from pipeline.ports import OpenRun
from pipeline.run.parts import RunParts
from pipeline.run.stopping import within

_EVERY = 1.0
# A process that was killed has its shard for some seconds more; one that lives has it for good.
_PATIENCE = 60.0


async def join(parts: RunParts, stop: asyncio.Event) -> OpenRun | None:
    """Begin the run, once nobody has this process's shard any more; None when stopped before.

    Raises ShardHeld when somebody has it for good.
    """
    waited = 0.0
    while True:
        try:
            return await asyncio.to_thread(
                parts.store.begin,
                parts.sync,
                parts.fingerprint,
                full=parts.full,
                shard=parts.shard,
            )
        except ShardHeld:
            if waited >= _PATIENCE:
                raise
        _tell(parts, f"shard {parts.shard.index} is still another process's")
        if await within(stop, _EVERY):
            return None
        waited += _EVERY


async def started(parts: RunParts, run: OpenRun) -> OpenRun:
    """The run once somebody has started the source, or left it to this process."""
    while run.reading is None and not run.starts:
        _tell(parts, "another shard starts the query")
        await asyncio.sleep(_EVERY)
        run = await asyncio.to_thread(parts.store.follow, run)
    return run


def _tell(parts: RunParts, activity: str) -> None:
    parts.observer(Waiting(sync=parts.sync, destination="", activity=activity))
