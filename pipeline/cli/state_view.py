"""Syncs as the state knows them: a table of all, and one in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.cli.output import moment, number, plain, stdout
from pipeline.cli.run_view import shard_as_dict, shard_now
from pipeline.model import Window
from pipeline.ports import SyncState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.ports import RunRecord, ShardState


COLUMNS = {
    "sync": "left",
    "last sync time": "whole",
    "completed": "right",
    "last result": "whole",
    "now": "left",
}


def never_run(name: str) -> SyncState:
    """The state of a sync that has none yet."""
    return SyncState(name=name, window=Window(start=0, sequence=1))


def state_as_dict(state: SyncState, last: RunRecord | None) -> dict[str, object]:
    """JSON-ready. last: its newest run."""
    return {
        "sync": state.name,
        "last_sync_time": state.window.start,
        "completed_runs": state.window.sequence - 1,
        "last_run": None if last is None else last.id,
        "last_result": _result(last),
        "unfinished_run": state.unfinished,
        "running_on": state.holder,
        "shards": [shard_as_dict(shard) for shard in state.shards],
    }


def state_row(state: SyncState, last: RunRecord | None) -> list[str]:
    """Under COLUMNS."""
    start = state.window.start
    return [
        state.name,
        moment(start) if start else "everything",
        number(state.window.sequence - 1),
        _result(last) or "-",
        what_now(state),
    ]


def print_state(state: SyncState, last: RunRecord | None) -> None:
    """All that is known of it, as text."""
    start = state.window.start
    since = f"{start} ({moment(start)})" if start else "0 (everything)"
    console = stdout()
    console.print(f"sync            {plain(state.name)}")
    console.print(f"last sync time  {since}")
    console.print(f"completed runs  {number(state.window.sequence - 1)}")
    console.print(f"last run        {'-' if last is None else f'{last.id}, {_result(last)}'}")
    console.print(f"now             {what_now(state)}")
    for shard in state.shards:
        console.print(f"  shard {shard.index:<8}{plain(shard_now(shard))}")


def _result(last: RunRecord | None) -> str | None:
    return None if last is None else str(last.result or "running")


def what_now(state: SyncState) -> str:
    """What it is at, in words."""
    if state.shards:
        return _shared(state.shards)
    if state.holder is not None:
        return f"running on {plain(state.holder)}"
    return "idle" if state.unfinished is None else "unfinished: the next run goes on with it"


def _shared(shards: Sequence[ShardState]) -> str:
    running = sum(shard.holder is not None for shard in shards)
    done = sum(shard.done for shard in shards)
    what = f"{running} running" if running else "unfinished"
    return f"{what}, {done} complete, of {len(shards)} shards"
