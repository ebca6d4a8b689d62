"""One Run from its lease to its report: begin, start the source, drive the lanes, commit, finish.

The order that keeps every promise: what the source started is kept before a row is read; dead
letters are durable before the Checkpoint that covers them; last_sync_time moves only when every
lane has settled every row.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.errors import LeaseError, PipelineError, ReadingExpired, ResultExpired
from pipeline.events import Committed, Finished, Restarted, Waiting, Warned
from pipeline.model import Counts, Reading, Result, Window
from pipeline.ports import Encoder, Observer, OpenRun, RunStore, Settlements, Source
from pipeline.run.lane import Lane, LaneLimits, Progress, Route
from pipeline.run.report import RunReport
from pipeline.run.stopping import first_error, until

_T = TypeVar("_T")

_COMMIT_EVERY = 1.0
# What expires again and again is not worth a fourth reading.
_MOST_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """Everything a Run is made of, as wired.

    encoder: of a destination, once window and schema are known; raises ConfigError.
    ledger: from stream -> rows settled before.
    """

    sync: str
    fingerprint: str
    full: bool
    source: Source
    routes: Sequence[Route]
    encoder: Callable[[Route, Window, pa.Schema], Encoder]
    ledger: Callable[[dict[int, int]], Settlements]
    store: RunStore
    limits: LaneLimits
    threads: int
    observer: Observer
    clock: Callable[[], float] = time.time


@dataclass(slots=True)
class _State:
    """What is known of the Run so far."""

    run: OpenRun | None = None
    reading: Reading | None = None
    billed: int = 0
    restarts: Counter[str] = field(default_factory=Counter)
    lanes: list[Lane] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, Counts]:
        before = dict(self.run.counts) if self.run else {}
        return before | {lane.name: lane.counts for lane in self.lanes}


async def execute(parts: RunParts, stop: asyncio.Event) -> RunReport:
    """Run once. What goes wrong is in the report; only our own faults are raised."""
    return await _Engine(parts, stop).execute()


class _Engine:
    def __init__(self, parts: RunParts, stop: asyncio.Event) -> None:
        self._parts, self._stop = parts, stop
        self._state = _State()

    async def execute(self) -> RunReport:
        started = time.perf_counter()
        error: PipelineError | None = None
        result = Result.FAILED
        try:
            result = await self._attempts()
        except* PipelineError as group:
            found = first_error(group)
            error = found if isinstance(found, PipelineError) else None
        finally:
            seconds = time.perf_counter() - started
            error = await self._finish(result, error)
            if error is not None:
                result = Result.FAILED
            self._tell_finished(result, seconds)
        return self._report(result, error, seconds)

    async def _attempts(self) -> Result:
        parts, state = self._parts, self._state
        state.run = await asyncio.to_thread(
            parts.store.begin, parts.sync, parts.fingerprint, full=parts.full
        )
        for attempt in count(1):
            try:
                return await self._attempt(state.run)
            except* ReadingExpired as group:
                if attempt >= _MOST_ATTEMPTS:
                    raise
                await self._restart(state.run, first_error(group))
        raise AssertionError  # the loop has no other end

    async def _restart(self, run: OpenRun, expired: BaseException) -> None:
        """The next attempt: on the same query's result, or, if that is gone too, on a new one.

        Streams and rows of two sessions can't be compared, so every row is read and sent again,
        under the message ids it had; but not to destinations that have settled all of them.
        """
        parts, state = self._parts, self._state
        same_query = not isinstance(expired, ResultExpired)
        reason = "session_expired" if same_query else "result_expired"
        await self._commit()
        done = [lane.name for lane in state.lanes if lane.complete]
        state.run = await asyncio.to_thread(
            parts.store.restart, run, str(expired), same_query=same_query, done=done
        )
        state.lanes, state.reading = [], None
        state.restarts[reason] += 1
        parts.observer(Restarted(sync=parts.sync, destination="", reason=reason))
        said = "The query runs again." if not same_query else "Reads the same result anew."
        parts.observer(
            Warned(
                sync=parts.sync,
                destination="",
                text=f"{expired} {said} Every row is sent again, under the message id it had.",
            )
        )

    async def _attempt(self, run: OpenRun) -> Result:
        state, done = self._state, asyncio.Event()
        # From the first moment on: a commit of nothing yet keeps the lease while the query runs.
        committer = asyncio.create_task(self._commit_often(done))
        try:
            state.reading = run.reading
            if state.reading is None:
                await self._unless_failed(committer, until(self._stop, self._start(run)))
            if state.reading is None:
                return Result.INTERRUPTED
            with ThreadPoolExecutor(self._parts.threads, thread_name_prefix="encode") as threads:
                for route in self._parts.routes:
                    route.begin(run.id)
                state.lanes = self._lanes(run, state.reading, threads)
                before = [_of_destination(run, lane.name) for lane in state.lanes]
                self._tell_settled(state.reading, before)
                return await self._unless_failed(committer, self._drive())
        finally:
            done.set()
            # What failed a commit fails the last one too, or was put right by it.
            await asyncio.gather(committer, return_exceptions=True)

    async def _start(self, run: OpenRun) -> None:
        parts = self._parts
        reading = await parts.source.start(run.window, run.job_key)
        if run.query_key is not None:  # an earlier attempt's query: billed there
            reading = replace(reading, bytes_billed=0)
        # Refuse what can't become calls before anything is sent, or kept to be gone on with.
        for route in parts.routes:
            parts.encoder(route, run.window, _schema(reading))
        await asyncio.to_thread(parts.store.attach, run, reading)
        self._state.reading = reading
        self._state.billed += reading.bytes_billed

    def _lanes(self, run: OpenRun, reading: Reading, threads: ThreadPoolExecutor) -> list[Lane]:
        parts = self._parts
        return [
            Lane(
                sync=parts.sync,
                route=route,
                source=parts.source,
                reading=reading,
                encoder=parts.encoder(route, run.window, _schema(reading)),
                ledger=parts.ledger(_of_destination(run, route.destination.name)),
                counts=run.counts.get(route.destination.name, Counts()),
                limits=parts.limits,
                threads=threads,
                observer=parts.observer,
            )
            for route in parts.routes
            if route.destination.name not in run.done
        ]

    async def _unless_failed(
        self, committer: asyncio.Task[None], work: Coroutine[Any, Any, _T]
    ) -> _T:
        """The work's result; a commit that fails (a lost lease, a full disk) ends it at once."""
        task = asyncio.create_task(work)
        try:
            either: set[asyncio.Task[Any]] = {task, committer}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if committer.done():
                committer.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        return task.result()

    async def _drive(self) -> Result:
        """All lanes to their ends, whatever becomes of the others."""
        lanes = [asyncio.create_task(lane.run(self._stop)) for lane in self._state.lanes]
        try:
            if lanes:
                await asyncio.wait(lanes)
        finally:
            for lane in lanes:  # done already, unless the run is cancelled
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        errors = [error for lane in lanes if (error := lane.exception()) is not None]
        if errors:
            # What ends the run for good counts before what a new attempt may go on from.
            errors.sort(key=lambda error: isinstance(first_error(error), ReadingExpired))
            raise first_error(BaseExceptionGroup("lanes", errors))
        complete = all(lane.result() is Result.COMPLETE for lane in lanes)
        return Result.COMPLETE if complete else Result.INTERRUPTED

    async def _commit_often(self, done: asyncio.Event) -> None:
        while not await _wait(done, _COMMIT_EVERY):
            self._tell_waiting()
            await self._commit()

    async def _commit(self) -> dict[str, Counts]:
        """Make durable what is settled now, and renew the lease. The counts of what is."""
        state = self._state
        if state.run is None:
            return {}
        lanes = tuple(state.lanes)  # as of now: the source may start, or start again, meanwhile
        progress, reading = [lane.progress() for lane in lanes], state.reading
        await asyncio.to_thread(self._write, state.run, progress)
        self._tell_settled(reading, [made.checkpoints for made in progress])
        for lane, made in zip(lanes, progress, strict=True):
            lane.kept(made.letters)
            self._parts.observer(
                Committed(sync=self._parts.sync, destination=lane.name, at=self._parts.clock())
            )
        return {made.destination: made.counts for made in progress}

    def _tell_settled(
        self, reading: Reading | None, checkpoints: Sequence[Mapping[int, int]]
    ) -> None:
        """Tell the source what no lane will ask for again, now that it is durable."""
        if reading is not None and checkpoints:
            streams = range(len(reading.streams))
            least = {stream: min(of.get(stream, 0) for of in checkpoints) for stream in streams}
            self._parts.source.settled(reading, least)

    def _write(self, run: OpenRun, progress: Sequence[Progress]) -> None:
        store = self._parts.store
        for made in progress:
            if made.letters:
                store.add_dead_letters(run, made.destination, made.letters)
        store.commit(
            run,
            {
                (made.destination, stream): rows
                for made in progress
                for stream, rows in made.checkpoints.items()
            },
            {made.destination: made.counts for made in progress},
        )

    async def _finish(self, result: Result, error: PipelineError | None) -> PipelineError | None:
        """Commit the last of it and close the run; what ends up as its error."""
        state, store = self._state, self._parts.store
        if state.run is None or isinstance(error, LeaseError):
            return error
        try:
            durable = await self._commit()
            await asyncio.to_thread(store.finish, state.run, result, durable, str(error or ""))
        except PipelineError as late:
            return error or late
        return error

    def _tell_waiting(self) -> None:
        parts = self._parts
        activity = parts.source.activity
        if activity:
            parts.observer(Waiting(sync=parts.sync, destination="", activity=activity))

    def _tell_finished(self, result: Result, seconds: float) -> None:
        parts = self._parts
        parts.observer(
            Finished(
                sync=parts.sync,
                destination="",
                result=result,
                seconds=seconds,
                at=parts.clock(),
                bytes_billed=self._state.billed,
            )
        )

    def _report(self, result: Result, error: PipelineError | None, seconds: float) -> RunReport:
        run, reading = self._state.run, self._state.reading
        return RunReport(
            sync=self._parts.sync,
            run=run.id if run else "",
            result=result,
            window=run.window if run else Window(start=0, sequence=0),
            query_started=reading.query_started if reading else None,
            rows=reading.rows if reading else None,
            bytes_processed=reading.bytes_processed if reading else 0,
            bytes_billed=self._state.billed,
            slot_ms=reading.slot_ms if reading else 0,
            cache_hit=reading.cache_hit if reading else False,
            seconds=seconds,
            destinations=self._state.counts,
            error=error,
            restarts=self._state.restarts,
        )


def _schema(reading: Reading) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(reading.schema))


def _of_destination(run: OpenRun, name: str) -> dict[int, int]:
    return {stream: rows for (owner, stream), rows in run.checkpoints.items() if owner == name}


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set within the time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
