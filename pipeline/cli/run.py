"""The verb run: syncs one after another, each to its end, with progress, metrics and signals.

A sync that fails does not keep the next from running; the exit code is the worst of all
(`exits.WORST_FIRST`). Once asked to stop, no further sync begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.cli.context import chosen_syncs, configured
from pipeline.cli.exits import END_INTERRUPTED, tell, worst
from pipeline.cli.logs import configure
from pipeline.cli.loop import Stopping, run_async
from pipeline.cli.options import OutputOption
from pipeline.cli.output import Output, fitted, number, print_json_line, rate, size, stderr, stdout
from pipeline.cli.progress import progress
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.events import Event
from pipeline.model import Counts, Result
from pipeline.ports import Observer
from pipeline.run.report import RunReport
from pipeline.wiring import run_sync

DRY_RUN_FOLDER = Path(".retl/dry-run")

app = typer.Typer()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A sync that could not begin, and why."""

    sync: str
    error: PipelineError

    @property
    def result(self) -> Result:
        """It can only have failed."""
        return Result.FAILED

    @property
    def exit_code(self) -> int:
        """That of the error."""
        return self.error.exit_code

    def as_dict(self) -> dict[str, object]:
        """JSON-ready, with the keys that a RunReport has too."""
        return {
            "sync": self.sync,
            "run": None,
            "result": self.result,
            "exit_code": self.exit_code,
            "error": str(self.error),
        }


Ended = RunReport | Refused


@app.command()
def run(
    ctx: typer.Context,
    syncs: Annotated[
        list[str] | None,
        typer.Argument(metavar="SYNC", help="Names of syncs.", show_default=False),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every sync of the file.")] = False,
    select: Annotated[
        list[str] | None,
        typer.Option(
            "--select",
            metavar="GLOB|tag:T",
            help="Syncs by a glob over their names, or by tag. May be repeated.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Write the payloads to .retl/dry-run/SYNC.ndjson; send nothing, keep no state.",
        ),
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Ask for all rows, as if for the first time.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            min=0,
            max=65535,
            help="Serve /metrics for Prometheus while running; 0 takes a free port.",
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run syncs: query, encode, deliver.

    Syncs run one after another, in the order of the file. SIGINT or SIGTERM stops reading,
    delivers what is in flight and exits 75; the next run goes on from there. A second signal
    ends at once. With --output json, a line of JSON per sync is printed as each ends. Of
    several exit codes the first of 70, 78, 77, 65, 75, 0 counts.
    """
    promise = "Stopping: delivering what is in flight. A second signal ends at once."
    with Stopping(promise, hurried=END_INTERRUPTED) as stopping:
        config = configured(ctx)
        names = chosen_syncs(config, syncs or [], select or [], everything=everything)
        configure(config.log, config.shard)
        port = config.metrics.port if metrics_port is None else metrics_port
        with measured(config, port) as observers:
            job = Job(
                config,
                names,
                full=full,
                dry_run=_dry_run_folder(config) if dry_run else None,
                told=_print_line if output is Output.JSON else None,
            )
            ended = run_async(job.run(stopping, observers))
    if output is Output.TABLE:
        console = stdout()
        console.print(summary(console, ended))
    for one in ended:
        if one.error is not None:
            tell(one.error, about=one.sync)
    interrupted = stopping.asked and len(ended) < len(names)
    raise typer.Exit(worst([*(one.exit_code for one in ended), END_INTERRUPTED * interrupted]))


@dataclass(frozen=True, slots=True)
class Job:
    """What one command runs. told: hears of each sync as it ends."""

    config: Config
    names: Sequence[str]
    full: bool = False
    dry_run: Path | None = None
    told: Callable[[Ended], None] | None = None

    async def run(self, stopping: Stopping, observers: Sequence[Observer] = ()) -> list[Ended]:
        """Each sync to its end; fewer than asked for when stopped."""
        stop = stopping.event()
        shown = progress()
        watching = fan_out([shown, *observers])
        ended: list[Ended] = []
        async with shown.showing():
            for name in self.names:
                if stop.is_set():
                    break
                one = await self._one(name, watching, stop)
                ended.append(one)
                if self.told is not None:
                    self.told(one)
        return ended

    async def _one(self, name: str, observer: Observer, stop: asyncio.Event) -> Ended:
        folder = self.dry_run
        try:
            return await run_sync(
                self.config,
                name,
                full=self.full,
                dry_run=None if folder is None else folder / f"{name}.ndjson",
                observer=observer,
                stop=stop,
            )
        except PipelineError as error:
            return Refused(sync=name, error=error)


def fan_out(observers: Sequence[Observer]) -> Observer:
    """One Observer that tells several."""

    def everyone(event: Event, /) -> None:
        for observer in observers:
            observer(event)

    return everyone


@contextmanager
def measured(config: Config, port: int | None) -> Iterator[list[Observer]]:
    """Serve metrics while the block runs; nothing when there is no port. Raises ConfigError."""
    if port is None:
        yield []
        return
    # prometheus_client takes a noticeable while to import, and most runs don't ask for it.
    from pipeline.metrics import PrometheusObserver, serve  # noqa: PLC0415

    observer = PrometheusObserver()
    server = serve(observer, config.metrics.host, port)
    try:
        stderr().print(f"Metrics: http://{config.metrics.host}:{server.port}/metrics")
        yield [observer]
    finally:
        server.close()


def _dry_run_folder(config: Config) -> Path:
    folder = config.directory / DRY_RUN_FOLDER
    # Payloads are row content: not for every user of the machine.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stderr().print(f"Dry run: payloads go to {folder}; nothing is sent.")
    return folder


def _print_line(ended: Ended) -> None:
    print_json_line(ended.as_dict())


def summary(console: Console, ended: Sequence[Ended]) -> Table:
    """The table that a run ends with: a line per sync, or per sync and destination."""
    parts = [(one, name, counts) for one in ended for name, counts in _destinations(one)]
    several = len(parts) > len(ended)
    again = any(map(_restarts, ended))
    numbers = ("read", "delivered", "dead", "requests", "seconds", "rows/s", "billed", "slots")
    columns = (
        {"sync": "left"}
        | ({"destination": "left"} if several else {})
        | {"result": "whole"}
        | ({"restarts": "right"} if again else {})
        | dict.fromkeys(numbers, "right")
    )
    rows: list[list[str | Text]] = [
        [
            one.sync,
            *([name] if several else []),
            Text(one.result, style="" if one.result is Result.COMPLETE else "red"),
            *([number(_restarts(one))] if again else []),
            *_numbers(one, counts),
        ]
        for one, name, counts in parts
    ]
    return fitted(console, columns, rows, spare=("slots", "rows/s", "billed", "requests"))


def _restarts(one: Ended) -> int:
    return 0 if isinstance(one, Refused) else sum(one.restarts.values())


def _destinations(one: Ended) -> Sequence[tuple[str, Counts]]:
    found = {} if isinstance(one, Refused) else one.destinations
    return list(found.items()) or [("-", Counts())]


def _numbers(one: Ended, counts: Counts) -> Sequence[str]:
    if isinstance(one, Refused):
        return ["-"] * 8
    return [
        number(counts.read),
        number(counts.delivered),
        number(counts.dead_lettered),
        number(counts.requests),
        f"{one.seconds:.1f}",
        rate(counts.read, one.seconds),
        size(one.bytes_billed),
        "cached" if one.cache_hit else f"{one.slot_ms / 1000:,.1f} s",
    ]
