"""A store that keeps nothing: for dry runs, which must leave no trace in the state."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from secrets import token_hex

from pipeline.model import Counts, DeadLetter, Reading, Result, Window
from pipeline.ports import ALONE, WHOLE, OpenRun, Shard, Standing


class ScratchStore:
    """A `RunStore` whose every run is new and on the same window."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._counts: Mapping[str, Counts] = {}

    def begin(
        self,
        sync: str,
        fingerprint: str,
        *,
        full: bool = False,
        shard: Shard = WHOLE,  # noqa: ARG002 - the port's shape
    ) -> OpenRun:
        """See `pipeline.ports.RunStore`."""
        start = 0 if full else self._window.start
        return OpenRun(
            id=f"dry-run-{sync}-{token_hex(8)}",  # nobody else's query job, today or tomorrow
            sync=sync,
            window=Window(start=start, sequence=self._window.sequence),
            fingerprint=fingerprint,
            attempt=1,
            reading=None,
            checkpoints={},
            counts={},
            resumed=False,
        )

    def follow(self, run: OpenRun) -> OpenRun:
        """Nobody shares it."""
        return run

    def attach(self, run: OpenRun, reading: Reading) -> None:
        """Nothing is kept."""

    def restart(
        self,
        run: OpenRun,
        reason: str,  # noqa: ARG002 - the port's shape
        *,
        same_query: bool = False,
        done: Collection[str] = (),
    ) -> OpenRun:
        """The same again."""
        following = self.begin(run.sync, run.fingerprint, full=run.window.start == 0)
        following = replace(following, attempt=run.attempt + 1)
        if not same_query:
            return following
        finished = run.done | {*done}
        kept = {name: counts for name, counts in self._counts.items() if name in finished}
        return replace(following, query_key=run.job_key, done=finished, counts=kept)

    def add_dead_letters(
        self, run: OpenRun, destination: str, letters: Sequence[DeadLetter]
    ) -> None:
        """Nothing is kept: the report counts them."""

    def commit(
        self,
        run: OpenRun,  # noqa: ARG002 - the port's shape
        checkpoints: Mapping[tuple[str, int], int],  # noqa: ARG002 - the port's shape
        counts: Mapping[str, Counts],
    ) -> Standing:
        """Only the counts are kept, for a restart."""
        self._counts = {**self._counts, **counts}
        return ALONE

    def finish(
        self, run: OpenRun, result: Result, counts: Mapping[str, Counts], error: str = ""
    ) -> None:
        """Nothing is kept."""
