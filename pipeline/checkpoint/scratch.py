"""A store that keeps nothing: for dry runs, which must leave no trace in the state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from secrets import token_hex

from pipeline.model import Counts, DeadLetter, Reading, Result, Window
from pipeline.ports import OpenRun


class ScratchStore:
    """A `RunStore` whose every run is new and on the same window."""

    def __init__(self, window: Window) -> None:
        self._window = window

    def begin(self, sync: str, fingerprint: str, *, full: bool = False) -> OpenRun:
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

    def attach(self, run: OpenRun, reading: Reading) -> None:
        """Nothing is kept."""

    def restart(self, run: OpenRun, reason: str) -> OpenRun:  # noqa: ARG002 - the port's shape
        """The same again."""
        return self.begin(run.sync, run.fingerprint, full=run.window.start == 0)

    def add_dead_letters(
        self, run: OpenRun, destination: str, letters: Sequence[DeadLetter]
    ) -> None:
        """Nothing is kept: the report counts them."""

    def commit(
        self,
        run: OpenRun,
        checkpoints: Mapping[tuple[str, int], int],
        counts: Mapping[str, Counts],
    ) -> None:
        """Nothing is kept."""

    def finish(
        self, run: OpenRun, result: Result, counts: Mapping[str, Counts], error: str = ""
    ) -> None:
        """Nothing is kept."""
