"""Where a seed's state lies: a SQLite file, or a Postgres of its own that can be restarted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

# A killed process's lease has to run out before another may begin, on whatever host it is; by
# nature that takes a minute. Renewed every quarter of a second: see plan.py.
_LEASE = 1.5


@dataclass(frozen=True, kw_only=True)
class State:
    """url: as in the configuration. lease: seconds; None: as it is. restart: see Fleet."""

    url: str
    lease: float | None = None
    restart: Callable[[], Awaitable[None]] | None = None


@asynccontextmanager
async def state(folder: Path, *, postgres: bool) -> AsyncIterator[State]:
    """A new one."""
    if not postgres:
        yield State(url=f"sqlite:///{folder}/state.db")
        return
    from postgres import Postgres  # only those need it who ask for it

    server = await asyncio.to_thread(Postgres)
    turn = asyncio.Lock()

    async def restart() -> None:
        """As after a crash: no connection is closed in order, and no transaction ended."""
        async with turn:
            await asyncio.to_thread(server._control, "-m", "immediate", "stop")
            await asyncio.to_thread(server.start)

    try:
        yield State(url=server.fresh(), lease=_LEASE, restart=restart)
    finally:
        async with turn:
            await asyncio.to_thread(server.close)
