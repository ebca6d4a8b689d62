"""The Jobs of one seed: processes that share a run, struck at their moments, until all is done.

As Kubernetes does with an Indexed Job: each index's process is started again until one exits 0,
sometimes while the one before it still lives. A Job may be given up as a whole; the next one then
takes its window, while its processes wake, or are started, too late.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from chaos.plan import GivenUp, Job, Life
from chaos.processes import AGAIN, BOUND, COMPLETE, Process, Processes, Unexpected
from chaos.services import Services

# Without faults a run may still find what the last one left: a lease, an expired session.
_CALM_LIVES = 6
_TAKEOVERS = 8
# The longest that a lease of the past lasts, as seen by a process that takes it over.
_LEASE_OVER = 120.0
_CALM = Life()
# `UnusableState`: the run is another Job's now.
_NOT_YOURS = 78


@dataclass(eq=False)
class _Working:
    """A Job that is played. planned: members with faults to come. gone: it was given up."""

    name: str
    planned: int
    running: set[Process] = field(default_factory=set)
    gone: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(kw_only=True)
class Fleet:
    """restart: restarts the state's server, where there is one. issue: more rows, so many."""

    services: Services
    processes: Processes
    issue: Callable[[int], Awaitable[None]]
    restart: Callable[[], Awaitable[None]] | None = None
    _tasks: set[asyncio.Future[None]] = field(default_factory=set)

    async def job(self, name: str, job: Job) -> bool:
        """Until every member is done: True; or until it is given up. Raises Unexpected."""
        one = _Working(name, self.processes.size)
        called_off = _nothing
        if job.given_up is not None:
            give_up = self._giving_up(one, job.given_up)
            called_off = self.services.moments.at(job.given_up.moment, give_up)
        work = asyncio.ensure_future(self._work(one, job.lives))
        gone = asyncio.ensure_future(one.gone.wait())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            called_off()
            gone.cancel()
        if work.done():
            work.result()
        else:  # of those that were given up, too, it matters how they end
            self._tasks.add(work)
        self.services.turn()
        return not one.gone.is_set()

    async def over(self) -> None:
        """What was begun beside the Jobs is over. Raises Unexpected."""
        await asyncio.gather(*self._tasks)

    async def _work(self, one: _Working, lives: tuple[tuple[Life, ...], ...]) -> None:
        async with asyncio.TaskGroup() as group:
            for index in range(self.processes.size):
                mine = lives[index] if index < len(lives) else ()
                group.create_task(self._member(one, index, mine))

    async def _member(self, one: _Working, index: int, lives: tuple[Life, ...]) -> None:
        """One index of a Job, until a process of it is complete or the Job is given up."""
        try:
            for life in lives:
                await asyncio.sleep(life.delay)
                if await self._is_done(one, index, life):
                    return
        finally:
            one.planned -= 1
            if index == 0 and not one.gone.is_set():  # the weather is this member's
                self.services.turn()
        left = _CALM_LIVES
        while left:
            left -= one.planned == 0  # as long as others have faults, they are everybody's
            if await self._is_done(one, index, _CALM):
                return
            await asyncio.sleep((self._lease or 0.0) / 2)
        raise Unexpected(f"{one.name}, {index}: not complete after {_CALM_LIVES} calm runs.")

    async def _is_done(self, one: _Working, index: int, life: Life) -> bool:
        """Live a life; whether it was the index's last."""
        if one.gone.is_set():
            return True
        code = await self._live(one, index, life)
        if code < 0 and self._lease and self.processes.size == 1:  # nobody could begin before
            await asyncio.sleep(self._lease)
        return code == COMPLETE or one.gone.is_set()

    @property
    def _lease(self) -> float | None:
        return self.processes.lease

    async def _live(self, one: _Working, index: int, life: Life) -> int:
        """Its exit code."""
        if index == 0 and not one.gone.is_set():
            self.services.turn(life.bigquery, life.sink)
        if life.rows:
            await self.issue(life.rows)
        moments, called_off = self.services.moments, [_nothing, _nothing]
        if self.restart is not None and life.restart is not None:
            called_off[0] = moments.at(life.restart, self._restart)
        process = await self.processes.start(one.name, index, life)
        one.running.add(process)
        if one.gone.is_set():
            _lose(process)
        if life.ending not in ("none", "die"):
            called_off[1] = moments.at(life.moment, process.strike)
        try:
            if life.ending == "pause":
                return await self._outlive(one, index, process)
            if life.ending == "twin":
                return await self._accompany(one, index, process)
            return await process.end()
        finally:
            for call_off in called_off:
                call_off()
            await process.discard()
            one.running.discard(process)

    async def _outlive(self, one: _Working, index: int, process: Process) -> int:
        """Let others take over from a process that was paused, and wake it: what the index made."""
        code, others = AGAIN, _CALM
        struck = await _until_struck(process)
        if struck and self._lease is None:
            # By this one's clock the lease is over.
            clock = {"offset": _LEASE_OVER, "after": 0.0, "jump": 0.0}
            others = replace(_CALM, child={"clock": clock})
        for _ in range(_TAKEOVERS if struck else 0):
            if await self._is_done(one, index, others):
                code = COMPLETE
            self.processes.counts["takeover"] += 1
            if code == COMPLETE:
                break
            await asyncio.sleep((self._lease or 0.0) / 2)
        process.send(signal.SIGCONT)
        own = await process.end()
        return COMPLETE if COMPLETE in (code, own) else AGAIN

    async def _accompany(self, one: _Working, index: int, process: Process) -> int:
        """Start another process of the same index while the first lives: what the index made."""
        codes = []
        if await _until_struck(process):
            weather = replace(_CALM, bigquery=process.life.bigquery, sink=process.life.sink)
            codes.append(await self._live(one, index, weather))
        codes.append(await process.end())
        return COMPLETE if COMPLETE in codes else AGAIN

    # ------------------------------------------------------------------ a whole Job's end

    def _giving_up(self, one: _Working, how: GivenUp) -> Callable[[], None]:
        def give_up() -> None:
            self.processes.counts["stranded" if how.paused else "given up"] += 1
            lost = [*one.running]
            for process in lost:
                if how.paused:
                    process.also.add(_NOT_YOURS)  # it may not have joined yet
                    process.send(signal.SIGSTOP)
                else:
                    _lose(process)
            one.gone.set()
            self._beside(self._wake(lost, how) if how.paused else self._come_late(one, how))

        return give_up

    async def _wake(self, lost: list[Process], how: GivenUp) -> None:
        """Go on, on a node that came back; `_work` waits for how they end."""
        await asyncio.sleep(how.back)
        for process in lost:
            process.send(signal.SIGCONT)

    async def _come_late(self, one: _Working, how: GivenUp) -> None:
        """A last process of the Job, beside those of the next."""
        await asyncio.sleep(how.back)
        late = await self.processes.start(one.name, self.processes.size - 1, _CALM)
        late.also.add(_NOT_YOURS)
        try:
            self.processes.counts[f"late: exit {await late.end()}"] += 1
        finally:
            await late.discard()

    def _restart(self) -> None:
        assert self.restart is not None
        self.processes.counts["restart"] += 1
        self._beside(self.restart())

    def _beside(self, work: Awaitable[None]) -> None:
        """Have it done, and remember it if it fails."""
        self._tasks.add(asyncio.ensure_future(work))


def _lose(process: Process) -> None:
    process.also.add(-signal.SIGKILL)
    process.send(signal.SIGKILL)


async def _until_struck(process: Process) -> bool:
    """Whether it was struck before it ended."""
    ended = asyncio.ensure_future(process.handle.wait())
    struck = asyncio.ensure_future(process.struck.wait())
    try:
        await asyncio.wait({ended, struck}, timeout=BOUND, return_when=asyncio.FIRST_COMPLETED)
        return struck.done() and process.alive
    finally:
        ended.cancel()
        struck.cancel()


def _nothing() -> None:
    pass
