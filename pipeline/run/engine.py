"""One Run from its lease to its report: begin, start the source, drive the lanes, commit, finish.

The order that keeps every promise: what the source started is kept before a row is read; dead
letters are durable before the Checkpoint that covers them; last_sync_time moves only when every
lane has settled every row.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pipeline.errors import LeaseError, PipelineError, ReadingExpired, ResultExpired, RunMoved
from pipeline.events import Warned
from pipeline.model import Result
from pipeline.ports import OpenRun
from pipeline.run.committer import Committer
from pipeline.run.parts import RunParts, RunState, checkpoints_of, schema_of
from pipeline.run.report import RunReport
from pipeline.run.shards import join, started
from pipeline.run.stopping import each_to_its_end, first_error, unless_failed, until, within
from pipeline.run.telling import (
    report_of,
    tell_finished,
    tell_idle_shards,
    tell_restarted,
    tell_waiting,
)

_COMMIT_EVERY = 1.0
# What expires again and again is not worth a fourth reading.
_MOST_ATTEMPTS = 3


async def execute(parts: RunParts, stop: asyncio.Event) -> RunReport:
    """Run once. What goes wrong is in the report; only our own faults are raised."""
    return await _Engine(parts, stop).execute()


class _Engine:
    def __init__(self, parts: RunParts, stop: asyncio.Event) -> None:
        self._parts, self._stop = parts, stop
        self._state = RunState()
        self._committer = Committer(parts, self._state)

    async def execute(self) -> RunReport:
        began = time.perf_counter()
        error: PipelineError | None = None
        result = Result.FAILED
        try:
            result = await self._attempts()
        except* PipelineError as group:
            found = first_error(group)
            error = found if isinstance(found, PipelineError) else None
        finally:
            seconds = time.perf_counter() - began
            error = await self._finish(result, error)
            if error is not None:
                result = Result.FAILED
            tell_finished(self._parts, self._state, result, seconds)
        return report_of(self._parts, self._state, result, error, seconds)

    async def _attempts(self) -> Result:
        state = self._state
        state.run = await join(self._parts, self._stop)
        if state.run is None:
            return Result.INTERRUPTED
        if state.run.over:
            state.reading, state.ended = state.run.reading, True
            return Result.COMPLETE
        while True:
            try:
                result = await self._attempt(state.run)
                if result is not Result.COMPLETE or await self._close(state.run):
                    return result
            except* ReadingExpired as group:
                if state.restarts.total() + 1 >= _MOST_ATTEMPTS:
                    raise
                await self._restart(state.run, first_error(group))
            except* RunMoved:
                await self._follow(state.run)

    async def _attempt(self, run: OpenRun) -> Result:
        state, done = self._state, asyncio.Event()
        self._committer.stand(run.standing)
        # From the first moment on: a commit of nothing yet keeps the lease while the query runs.
        committer = asyncio.create_task(self._commit_often(done))
        try:
            if run.reading is None:
                await unless_failed(committer, until(self._stop, self._start(run)))
                run = state.run or run
            state.reading = state.reading or run.reading
            if state.reading is None:
                return Result.INTERRUPTED
            with ThreadPoolExecutor(self._parts.threads, thread_name_prefix="encode") as threads:
                for route in self._parts.routes:
                    route.begin(run.id)
                state.lanes = self._parts.lanes(run, state.reading, threads)
                before = [checkpoints_of(run, lane.name) for lane in state.lanes]
                self._committer.tell_settled(state.reading, before)
                return await unless_failed(committer, self._drive())
        finally:
            done.set()
            # What failed a commit fails the last one too, or was put right by it.
            await asyncio.gather(committer, return_exceptions=True)

    async def _start(self, run: OpenRun) -> None:
        """Start the source, or wait until another shard has."""
        parts = self._parts
        run = self._state.run = await started(parts, run)
        if run.reading is not None:
            return
        reading = await parts.source.start(run.window, run.job_key)
        if run.query_key is not None:  # an earlier attempt's query: billed there
            reading = replace(reading, bytes_billed=0)
        # Refuse what can't become calls before anything is sent, or kept to be gone on with.
        for route in parts.routes:
            parts.encoder(route, run.window, schema_of(reading))
        await asyncio.to_thread(parts.store.attach, run, reading)
        self._state.reading = reading
        self._state.billed += reading.bytes_billed
        tell_idle_shards(parts, run, reading)

    async def _drive(self) -> Result:
        """All lanes to their ends, whatever becomes of the others."""
        lanes = self._state.lanes
        results, errors = await each_to_its_end([lane.run(self._stop) for lane in lanes])
        if errors:
            # What ends the run for good counts before what a new attempt may go on from.
            errors.sort(key=lambda error: isinstance(first_error(error), ReadingExpired))
            raise first_error(BaseExceptionGroup("lanes", errors))
        complete = all(result is Result.COMPLETE for result in results)
        return Result.COMPLETE if complete else Result.INTERRUPTED

    async def _commit_often(self, done: asyncio.Event) -> None:
        while not await within(done, _COMMIT_EVERY):
            tell_waiting(self._parts)
            await self._committer.commit()
            self._committer.judge()

    # ------------------------------------------------------------------ another attempt

    async def _restart(self, run: OpenRun, expired: BaseException) -> None:
        """The next attempt: on the same query's result, or, if that is gone too, on a new one.

        Streams and rows of two sessions can't be compared, so every row is read and sent again,
        under the message ids it had; but not to destinations that have settled all of them.
        """
        parts, state = self._parts, self._state
        same_query = not isinstance(expired, ResultExpired)
        try:
            await self._committer.commit()
            done = [lane.name for lane in state.lanes if lane.complete]
            following = await asyncio.to_thread(
                parts.store.restart, run, str(expired), same_query=same_query, done=done
            )
        except RunMoved:  # another shard was faster
            await self._follow(run)
            return
        state.go_on_with(following)
        tell_restarted(parts, state, "session_expired" if same_query else "result_expired")
        said = "The query runs again." if not same_query else "Reads the same result anew."
        but = f", but not to {', '.join(sorted(following.done))}" if following.done else ""
        parts.observer(
            Warned(
                sync=parts.sync,
                destination="",
                text=f"{expired} {said} Every row is sent again{but}, under the message id it had.",
            )
        )

    async def _follow(self, run: OpenRun) -> None:
        """Go over to what another process has made of the run."""
        following = await asyncio.to_thread(self._parts.store.follow, run)
        self._state.go_on_with(following)
        if following.id != run.id:
            reason = "session_expired" if following.query_key else "result_expired"
            tell_restarted(self._parts, self._state, reason)

    # ------------------------------------------------------------------ the end

    async def _close(self, run: OpenRun) -> bool:
        """End the run, or this shard of it; False when there is more of it to read after all."""
        state, store = self._state, self._parts.store
        durable = await self._committer.commit()
        if run.streams.of > 1:  # two that made their last commits at once have not seen each other
            seen = await asyncio.to_thread(store.follow, run)
            self._committer.stand(seen.standing)
        self._committer.judge()
        left = await asyncio.to_thread(store.finish, run, Result.COMPLETE, durable)
        state.closed = left is None
        state.ended = left is None or left.over
        if left is not None and not left.over:
            state.go_on_with(left)
        return state.ended

    async def _finish(self, result: Result, error: PipelineError | None) -> PipelineError | None:
        """Commit the last of it and leave the run; what ends up as its error."""
        run = self._state.run
        if run is None or self._state.ended or isinstance(error, LeaseError):
            return error
        try:
            await self._leave(run, result, str(error or ""))
        except PipelineError as late:
            return error or late
        return error

    async def _leave(self, run: OpenRun, result: Result, error: str) -> None:
        store = self._parts.store
        try:
            durable = await self._committer.commit()
            await asyncio.to_thread(store.finish, run, result, durable, error)
        except RunMoved:  # begun anew by another shard, and nothing of that is counted here
            moved = await asyncio.to_thread(store.follow, run)
            await asyncio.to_thread(store.finish, moved, result, {}, error)
