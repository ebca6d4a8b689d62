"""Makes durable what the lanes have settled, and tells everybody: dead letters, then Checkpoints.

What a commit brings back is how the run stands elsewhere, where other processes have shards of it:
the rate limit is shared by those that are unfinished, and `max_rejected` counts all rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from pipeline.events import Committed
from pipeline.model import Counts, Reading
from pipeline.ports import OpenRun, Standing
from pipeline.run.lane import Progress
from pipeline.run.parts import RunParts, RunState


class Committer:
    """Of one Run."""

    def __init__(self, parts: RunParts, state: RunState) -> None:
        self._parts, self._state = parts, state

    async def commit(self) -> dict[str, Counts]:
        """Make durable what is settled now, and renew the lease. The counts of what is."""
        state = self._state
        if state.run is None:
            return {}
        lanes = tuple(state.lanes)  # as of now: the source may start, or start again, meanwhile
        progress, reading = [lane.progress() for lane in lanes], state.reading
        standing = await asyncio.to_thread(self._write, state.run, progress)
        self.tell_settled(reading, [made.checkpoints for made in progress])
        for lane, made in zip(lanes, progress, strict=True):
            lane.kept(made.letters)
            self._parts.observer(
                Committed(sync=self._parts.sync, destination=lane.name, at=self._parts.clock())
            )
        self.stand(standing)
        return {made.destination: made.counts for made in progress}

    def stand(self, standing: Standing) -> None:
        """Take note of what the other shards have done."""
        for route in self._parts.routes:
            route.share(standing.share.place, standing.share.of)
        for lane in self._state.lanes:
            lane.elsewhere = standing.elsewhere.get(lane.name, Counts())

    def judge(self) -> None:
        """Raise TooManyRejected when it is so over all shards."""
        for lane in self._state.lanes:
            lane.check_tolerance()

    def tell_settled(
        self, reading: Reading | None, checkpoints: Sequence[Mapping[int, int]]
    ) -> None:
        """Tell the source what no lane will ask for again, now that it is durable."""
        run = self._state.run
        if run is not None and reading is not None and checkpoints:
            streams = filter(run.streams.has, range(len(reading.streams)))
            least = {stream: min(of.get(stream, 0) for of in checkpoints) for stream in streams}
            self._parts.source.settled(reading, least)

    def _write(self, run: OpenRun, progress: Sequence[Progress]) -> Standing:
        store = self._parts.store
        for made in progress:
            if made.letters:
                store.add_dead_letters(run, made.destination, made.letters)
        return store.commit(
            run,
            {
                (made.destination, stream): rows
                for made in progress
                for stream, rows in made.checkpoints.items()
            },
            {made.destination: made.counts for made in progress},
        )
