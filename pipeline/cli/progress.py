"""What a person sees while runs go on: a bar per sync and destination, or log lines.

Both are fed by events and only count then; drawing happens on its own clock, so that its cost
does not depend on how many batches go by. Bars on a terminal, lines anywhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.cli.output import number, stderr
from pipeline.events import (
    Buffered,
    Encoded,
    Event,
    Finished,
    HistoryPruned,
    Retried,
    Settled,
    Started,
    Waiting,
    Warned,
)
from pipeline.model import Result

DRAWS_PER_SECOND = 8
# Seconds over which the shown rows/s is taken, and between two progress lines of a log.
RATE_SPAN = 3.0
LINE_EVERY = 10.0
# On a narrower terminal the bars make room for the numbers.
WIDE = 100


@dataclass(slots=True)
class Tally:
    """What is known of one sync at one destination. Rows, but for retries (requests)."""

    sync: str
    destination: str
    began: float
    total: int | None = None
    skipped: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    read: int = 0
    in_flight: int = 0
    retries: int = 0
    retried_for: str = ""
    ended: float | None = None
    result: Result | None = None
    seen: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def done(self) -> int:
        """Rows with a final outcome, those of an earlier process included."""
        return self.skipped + self.delivered + self.dead_lettered

    def rows_per_second(self, now: float) -> float:
        """Over the last seconds while it runs, over all of it once it has ended."""
        if self.ended is not None:
            return (self.done - self.skipped) / max(self.ended - self.began, 1e-3)
        if not self.seen:
            self.seen.append((self.began, self.skipped))
        self.seen.append((now, self.done))
        while len(self.seen) > 2 and now - self.seen[1][0] >= RATE_SPAN:
            self.seen.popleft()
        since, then = self.seen[0]
        return (self.done - then) / max(now - since, 1e-3)


class Board:
    """An Observer that keeps a Tally per sync and destination, in order of appearance."""

    def __init__(self) -> None:
        self.tallies: dict[tuple[str, str], Tally] = {}
        self.waiting: dict[str, str] = {}
        """Sync -> what its source is at, while it gets ready."""

    def __call__(self, event: Event, /) -> None:
        """Count."""
        if not event.destination:
            self._of_the_run(event)
            return
        self.waiting.pop(event.sync, None)
        key = (event.sync, event.destination)
        tally = self.tallies.get(key)
        if tally is None or isinstance(event, Started):
            tally = self.tallies[key] = Tally(event.sync, event.destination, time.monotonic())
        match event:
            case Started():
                tally.total, tally.skipped = event.rows, event.skipped
            case Encoded():
                tally.read += event.rows
                tally.dead_lettered += sum(event.invalid.values())
            case Settled():
                tally.delivered += event.delivered
                tally.dead_lettered += sum(event.rejected.values())
            case Buffered():
                tally.in_flight = event.rows
            case Retried():
                tally.retries += 1
                tally.retried_for = event.reason
            case _:
                pass

    def _of_the_run(self, event: Event) -> None:
        self.waiting.pop(event.sync, None)
        if isinstance(event, Waiting):
            self.waiting[event.sync] = event.activity
        elif isinstance(event, Finished):
            for tally in self.of(event.sync):
                tally.ended, tally.result, tally.in_flight = time.monotonic(), event.result, 0

    def of(self, sync: str) -> Iterator[Tally]:
        """The tallies of one sync."""
        return (tally for (name, _), tally in self.tallies.items() if name == sync)


class Progress(Protocol):
    """An Observer that shows what it hears, between the start and end of `showing`."""

    def __call__(self, event: Event, /) -> None:
        """Take note of one event."""

    def showing(self) -> Any:
        """An async context manager in which progress is shown."""


class Bars:
    """Progress on a terminal."""

    def __init__(self, console: Console) -> None:
        self._board = Board()
        self._console = console

    def __call__(self, event: Event, /) -> None:
        """Count; drawn later. Warnings stay above the bars."""
        self._board(event)
        if isinstance(event, Warned):
            self._console.print(Text(f"{event.sync}: {event.text}", style="yellow"))
        elif isinstance(event, HistoryPruned):
            what = f"{event.runs:,} runs and {event.dead_letters:,} dead letters"
            self._console.print(Text(f"Deleted from the history by age: {what}.", style="dim"))

    @asynccontextmanager
    async def showing(self) -> AsyncIterator[None]:
        """Draw a few times a second, and a last time at the end."""
        with self.drawing():
            yield

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """The same without an event loop."""
        live = Live(
            get_renderable=self.grid,
            console=self._console,
            refresh_per_second=DRAWS_PER_SECOND,
            vertical_overflow="visible",
        )
        with live:
            yield

    def grid(self) -> Table:
        """The bars as they are now."""
        now = time.monotonic()
        wide = self._console.width >= WIDE
        grid = Table.grid(padding=(0, 2, 0, 0))
        tallies = list(self._board.tallies.values())
        several = len({tally.destination for tally in tallies}) > 1
        for tally in tallies:
            name = f"{tally.sync} > {tally.destination}" if several else tally.sync
            grid.add_row(
                Text(name, overflow="ellipsis", no_wrap=True),
                _bar(tally, 30 if wide else 12),
                _amount(tally),
                Text(f"{number(tally.rows_per_second(now))} rows/s", justify="right"),
                _asides(tally),
            )
        for sync, activity in self._board.waiting.items():
            grid.add_row(
                Text(sync, overflow="ellipsis", no_wrap=True),
                ProgressBar(total=None, width=30 if wide else 12, pulse=True),
                Text(activity, overflow="ellipsis", no_wrap=True, style="dim"),
            )
        return grid


def _bar(tally: Tally, width: int) -> ProgressBar:
    ended = tally.ended is not None
    # A bar of unknown length pulses; one that ended with nothing to do is full.
    total = (tally.done or 1) if ended and not tally.total else tally.total
    done = total if ended and tally.result is Result.COMPLETE and total else tally.done
    failed = tally.result not in (None, Result.COMPLETE)
    return ProgressBar(
        total=total or None,
        completed=done or 0,
        width=width,
        pulse=not ended and not total,
        complete_style="red" if failed else "bar.complete",
        finished_style="red" if failed else "green",
    )


def _amount(tally: Tally) -> Text:
    total = "?" if tally.total is None else number(tally.total)
    complete = tally.result is Result.COMPLETE
    text = number(tally.done) if complete else f"{number(tally.done)}/{total}"
    return Text(text, justify="right", no_wrap=True)


def _asides(tally: Tally) -> Text:
    """What is worth a look, the worst first, because a narrow terminal cuts the end."""
    text = Text(no_wrap=True, overflow="ellipsis")
    if tally.result not in (None, Result.COMPLETE):
        text.append(f"{tally.result}  ", style="bold red")
    if tally.dead_lettered:
        text.append(f"{number(tally.dead_lettered)} dead  ", style="red")
    if tally.retries:
        text.append(f"{number(tally.retries)} retries ({tally.retried_for})  ", style="yellow")
    if tally.in_flight:
        text.append(f"{number(tally.in_flight)} in flight", style="dim")
    return text


class Lines:
    """Progress as log lines: when a run starts, every ten seconds, and when it ends."""

    def __init__(self, *, every: float = LINE_EVERY) -> None:
        self._board = Board()
        self._every = every
        self._log = structlog.get_logger()

    def __call__(self, event: Event, /) -> None:
        """Count, and tell of starts and ends."""
        self._board(event)
        if isinstance(event, Started):
            self._log.info(
                "run started",
                sync=event.sync,
                destination=event.destination,
                rows=event.rows,
                skipped=event.skipped,
            )
        elif isinstance(event, Finished):
            tallies = list(self._board.of(event.sync))
            for tally in tallies:
                self._tell("run finished", tally, result=str(event.result))
            if not tallies and event.result is Result.COMPLETE:  # a shard that was over already
                self._log.info("run finished", sync=event.sync, result=str(event.result))
        elif isinstance(event, Warned):
            self._log.warning(event.text, sync=event.sync)
        elif isinstance(event, HistoryPruned):
            self._log.info(
                "history pruned", sync=event.sync, runs=event.runs, dead_letters=event.dead_letters
            )

    @asynccontextmanager
    async def showing(self) -> AsyncIterator[None]:
        """Tell of what runs, again and again, whether or not anything moves."""
        ticker = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticker.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            for sync, activity in self._board.waiting.items():
                self._log.info("run waiting", sync=sync, activity=activity)
            for tally in self._board.tallies.values():
                if tally.ended is None:
                    self._tell("run progress", tally, in_flight=tally.in_flight)

    def _tell(self, what: str, tally: Tally, **more: object) -> None:
        self._log.info(
            what,
            sync=tally.sync,
            destination=tally.destination,
            **more,
            rows=tally.total,
            read=tally.read,
            delivered=tally.delivered,
            dead_lettered=tally.dead_lettered,
            retries=tally.retries,
            **({"retried_for": tally.retried_for} if tally.retried_for else {}),
            rows_per_second=round(tally.rows_per_second(time.monotonic())),
        )


def progress() -> Progress:
    """Bars when stderr is a terminal that can draw them, else Lines."""
    console = stderr()
    drawable = console.is_terminal and not console.is_dumb_terminal
    return Bars(console) if drawable else Lines()
