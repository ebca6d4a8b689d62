"""What a Run tells of itself as a whole, while it goes on and when it has ended."""

from __future__ import annotations

from pipeline.errors import PipelineError
from pipeline.events import Finished, Restarted, Waiting, Warned
from pipeline.model import Reading, Result, Window
from pipeline.ports import OpenRun
from pipeline.run.parts import RunParts, RunState
from pipeline.run.report import RunReport

# So many rows are one process's work of a moment, and come through few streams anyway.
_SMALL = 100_000


def tell_waiting(parts: RunParts) -> None:
    """What the source is at, while that is anything to tell."""
    activity = parts.source.activity
    if activity:
        parts.observer(Waiting(sync=parts.sync, destination="", activity=activity))


def tell_restarted(parts: RunParts, state: RunState, reason: str) -> None:
    """That a reading is begun anew, by this process or another; counted here."""
    state.restarts[reason] += 1
    parts.observer(Restarted(sync=parts.sync, destination="", reason=reason))


def tell_idle_shards(parts: RunParts, run: OpenRun, reading: Reading) -> None:
    """Warn when some shards have nothing to do though there is much to do."""
    streams, shards = len(reading.streams), run.streams.of
    if streams < shards and (reading.rows or 0) > _SMALL:
        text = (
            f"There are {streams} streams for {shards} shards, and those without one end at once. "
            "Rows that keep an order (ORDER BY, `ordering: per_user`) come through one stream."
        )
        parts.observer(Warned(sync=parts.sync, destination="", text=text))


def tell_finished(parts: RunParts, state: RunState, result: Result, seconds: float) -> None:
    """That the run has ended, or this process's shard of it."""
    parts.observer(
        Finished(
            sync=parts.sync,
            destination="",
            result=result,
            seconds=seconds,
            at=parts.clock(),
            bytes_billed=state.billed,
            whole=state.closed or result is not Result.COMPLETE,
        )
    )


def report_of(
    parts: RunParts, state: RunState, result: Result, error: PipelineError | None, seconds: float
) -> RunReport:
    """What it came to, of all that this process knows."""
    run, reading = state.run, state.reading
    return RunReport(
        sync=parts.sync,
        run=run.id if run else "",
        result=result,
        window=run.window if run else Window(start=0, sequence=0),
        query_started=reading.query_started if reading else None,
        rows=reading.rows if reading else None,
        bytes_processed=reading.bytes_processed if reading else 0,
        bytes_billed=state.billed,
        slot_ms=reading.slot_ms if reading else 0,
        cache_hit=reading.cache_hit if reading else False,
        seconds=seconds,
        destinations=state.counts,
        error=error,
        restarts=state.restarts,
        shard=parts.shard,
    )
