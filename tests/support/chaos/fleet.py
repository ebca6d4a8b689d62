"""The processes of one seed: started, struck at their moments, and started again until done.

As Kubernetes does with a Job: each member of the fleet is one index, whose process is started
again until it exits 0. Judges only what a process may end with.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from chaos.plan import Life
from chaos.services import Services

ROOT = Path(__file__).parents[3]
COMPLETE, AGAIN = 0, 75

BOUND = 90.0
"""Seconds within which every process has to end, whatever was done to it: liveness."""

# Without faults a run may still find what the last one left: a lease, an expired session.
_CALM_LIVES = 6
_TAKEOVERS = 8
# The longest that a lease of the past lasts, as seen by a process that takes it over.
_LEASE_OVER = 120.0
_CALM = Life()
# Of what child.py does, what counts as a fault by itself.
_INSIDE = {"clock", "disk"}


class Unexpected(Exception):
    """A process did not end as it may."""


@dataclass
class Fleet:
    """size: how many processes share a run. lease: seconds it lasts; None: as it is.

    restart: restarts the state's server, where there is one. issue: more rows, so many.
    counts: what was done, by kind.
    """

    services: Services
    folder: Path
    issue: Callable[[int], Awaitable[None]]
    size: int = 1
    lease: float | None = None
    restart: Callable[[], Awaitable[None]] | None = None
    sabotage: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    _tasks: set[asyncio.Future[None]] = field(default_factory=set)

    async def job(self, name: str, lives: tuple[tuple[Life, ...], ...]) -> None:
        """One window, until every member is done. Raises Unexpected."""
        async with asyncio.TaskGroup() as group:
            for index in range(self.size):
                mine = lives[index] if index < len(lives) else ()
                group.create_task(self._member(name, index, mine))
        self.services.turn()

    async def over(self) -> None:
        """What was begun beside the processes is over."""
        await asyncio.gather(*self._tasks)

    async def _member(self, job: str, index: int, lives: tuple[Life, ...]) -> None:
        for life in lives:
            code = await self._live(job, index, life)
            if code == COMPLETE:
                return
            if code < 0 and self.lease:  # nobody could begin before
                await asyncio.sleep(self.lease)
        if index == 0:
            self.services.turn()
        for _ in range(_CALM_LIVES):
            if await self._live(job, index, _CALM) == COMPLETE:
                return
            if self.lease:
                await asyncio.sleep(self.lease / 2)
        raise Unexpected(f"{job}, process {index}: not complete after {_CALM_LIVES} calm runs.")

    async def _live(self, job: str, index: int, life: Life) -> int:
        """Its exit code."""
        if index == 0:
            self.services.turn(life.bigquery, life.sink)
        if life.rows:
            await self.issue(life.rows)
        if self.restart is not None and life.restart is not None:
            self.services.moments.at(life.restart, self._restart)
        process = await self._start(job, index, life)
        called_off, struck = self._strike(process, life)
        try:
            if life.ending != "pause":
                return await self._end(process, life, struck)
            return await self._outlive(job, index, process, struck)
        finally:
            called_off()
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _strike(
        self, process: asyncio.subprocess.Process, life: Life
    ) -> tuple[Callable[[], None], asyncio.Event]:
        """Have it done to the process what its life's ending says; what tells when it was."""
        struck = asyncio.Event()
        signals = {
            "kill": [signal.SIGKILL],
            "term": [signal.SIGTERM],
            "term twice": [signal.SIGTERM, signal.SIGTERM],
            "pause": [signal.SIGSTOP],
        }.get(life.ending, [])

        def act() -> None:
            if process.returncode is None:
                for number in signals:
                    process.send_signal(number)
                self.counts[life.ending] += 1
                struck.set()

        return (self.services.moments.at(life.moment, act) if signals else _nothing), struck

    async def _outlive(
        self, job: str, index: int, process: asyncio.subprocess.Process, struck: asyncio.Event
    ) -> int:
        """Let others take over from a process that was paused, and wake it: what the index made."""
        ended = asyncio.ensure_future(process.wait())
        paused = asyncio.ensure_future(struck.wait())
        await asyncio.wait({ended, paused}, timeout=BOUND, return_when=asyncio.FIRST_COMPLETED)
        paused.cancel()
        code, others = AGAIN, _CALM
        if not ended.done() and self.lease is None:
            # By this one's clock the lease is over.
            others = replace(_CALM, child={"clock": _clock(_LEASE_OVER)})
        for _ in range(_TAKEOVERS if not ended.done() else 0):
            code = await self._live(job, index, others)
            self.counts["takeover"] += 1
            if code == COMPLETE:
                break
            await asyncio.sleep((self.lease or 0.0) / 2)
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
        own = await self._end(process, replace(_CALM, ending="pause"), struck)
        return COMPLETE if COMPLETE in (code, own) else AGAIN

    async def _end(
        self, process: asyncio.subprocess.Process, life: Life, struck: asyncio.Event
    ) -> int:
        """Its exit code, which has to be one of those it may end with."""
        try:
            async with asyncio.timeout(BOUND):
                code = await process.wait()
        except TimeoutError:
            process.send_signal(signal.SIGABRT)  # its threads' stacks go to the log
            await process.wait()
            raise Unexpected(f"A process did not end within {BOUND:g} s, after {life}.") from None
        self.counts[f"exit {code}"] += 1
        if code == -signal.SIGKILL and life.ending == "die":
            self.counts["die"] += 1
        may = {COMPLETE, AGAIN}
        if life.ending == "die" or (life.ending == "kill" and struck.is_set()):
            may.add(-signal.SIGKILL)
        if life.ending.startswith("term") and life.moment.on == "start":
            may.add(-signal.SIGTERM)  # Python itself was not ready to hear it
        if code not in may:
            raise Unexpected(f"A process ended with {code}, after {life}.")
        return code

    async def _start(self, job: str, index: int, life: Life) -> asyncio.subprocess.Process:
        given = dict(life.child)
        if self.lease is not None:
            given["lease"] = self.lease
        if self.sabotage is not None:
            given["sabotage"] = self.sabotage
        environment = {
            **_clean(),
            **self.environment,
            **life.environment,
            **self._shard(job, index),
            "CHAOS": json.dumps(given),
        }
        self.counts["processes"] += 1
        for fault in life.child:
            self.counts[fault] += fault in _INSIDE
        with self._log() as log:
            log.write(f"--- {job}, process {index}: {life}\n")
            log.flush()
            return await asyncio.create_subprocess_exec(
                sys.executable,
                str(Path(__file__).with_name("child.py")),
                "run",
                "moved",
                cwd=self.folder,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _shard(self, job: str, index: int) -> dict[str, str]:
        if self.size == 1:
            return {}
        return {
            "RETL_SHARDS": str(self.size),
            "JOB_COMPLETION_INDEX": str(index),
            "RETL_JOB": job,
        }

    def _log(self) -> IO[str]:
        return (self.folder / "log").open("a", encoding="utf-8")

    def _restart(self) -> None:
        assert self.restart is not None
        self.counts["restart"] += 1
        task = asyncio.ensure_future(self.restart())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _clean() -> dict[str, str]:
    """The environment, without what would reach the command by chance."""
    strange = ("RETL_", "KUBERNETES_", "JOB_COMPLETION_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(strange)}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", "NO_COLOR": "1"}


def _clock(offset: float) -> dict[str, float]:
    return {"offset": offset, "after": 0.0, "jump": 0.0}


def _nothing() -> None:
    pass
