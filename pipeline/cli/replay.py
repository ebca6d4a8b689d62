"""The verb dead-letters replay: rejected rows sent again, as they were."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.context import configured, of_whom
from pipeline.cli.exits import END_INTERRUPTED, tell, worst
from pipeline.cli.letter_filter import (
    WHY,
    DestinationOption,
    ReasonOption,
    RunOption,
    SinceOption,
    SyncArgument,
    so_many,
    which_letters,
)
from pipeline.cli.loop import Stopping, run_async
from pipeline.cli.options import OutputOption
from pipeline.cli.output import Output, number, print_json, stderr, stdout, table
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.ports import LetterFilter, Obstacle
from pipeline.wiring import replay_letters

if TYPE_CHECKING:
    from pipeline.run.replay_report import Replayed, ReplayReport


@dataclass(frozen=True, slots=True)
class Replaying:
    """What one command replays, and how."""

    config: Config
    which: LetterFilter
    most: int | None
    one_by_one: bool
    dry_run: bool
    to: str | None

    async def run(self, stopping: Stopping) -> list[ReplayReport]:
        """Each sync to its end; fewer when stopped."""
        return await replay_letters(
            self.config,
            self.which,
            most=self.most,
            one_by_one=self.one_by_one,
            dry_run=self.dry_run,
            to=self.to,
            stop=stopping.event(),
        )


def replay(
    ctx: typer.Context,
    sync: SyncArgument = None,
    *,
    run: RunOption = None,
    destination: DestinationOption = None,
    reason: ReasonOption = None,
    since: SinceOption = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="So many at most, oldest first.", show_default=False),
    ] = None,
    one_by_one: Annotated[
        bool,
        typer.Option(
            "--one-by-one",
            help="Each in a request of its own: slow, but finds the few that are accepted.",
        ),
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URI",
            help="Deliver them to this file, or to a folder by its URI (gs://, s3://), as NDJSON "
            "instead of to their destinations.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show how many would be sent.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send rejected rows again, as they were, to their destinations.

    What is delivered is no dead letter any more; what is rejected again stays, with the new
    reason. Invalid rows stay as they are. No run of the sync can begin meanwhile. SIGINT or
    SIGTERM settles what is in flight and exits 75; so does a sync that is running.
    """
    which = which_letters(sync, run, destination, reason, since)
    if to is not None and "://" not in to:
        to = str(Path(to).absolute())
    with Stopping("Stopping: settling what is in flight.", hurried=END_INTERRUPTED) as stopping:
        config = configured(ctx)
        work = Replaying(config, which, limit, one_by_one, dry_run, to)
        reports = run_async(work.run(stopping))
    _tell(reports, output, dry_run=dry_run, none=f"No dead letters{of_whom(config, sync)}.")
    codes = [report.exit_code for report in reports]
    raise typer.Exit(worst([*codes, END_INTERRUPTED * stopping.asked]))


def _tell(reports: list[ReplayReport], output: Output, *, dry_run: bool, none: str) -> None:
    """What came of it. Raises ConfigError when there were letters, and none could be replayed."""
    tallies = [tally for report in reports for tally in report.destinations.values()]
    left = {why: sum(tally.left[why] for tally in tallies) for why in Obstacle}
    if output is Output.JSON:
        print_json([report.as_dict() for report in reports])
    elif not reports:
        stderr().print(none)
    else:
        head = ("replayable",) if dry_run else ("replayed", "delivered", "rejected")
        columns = {"sync": "left", "destination": "left"}
        columns |= dict.fromkeys((*head, "left out"), "right")
        stdout().print(table(columns, _rows(reports, dry_run=dry_run)))
        for why, letters in left.items():
            if letters:
                stderr().print(f"Left out: {number(letters)} {WHY[why]}.")
    for report in reports:
        if report.error is not None:
            tell(report.error, about=report.sync)
    if any(left.values()) and not any(tally.letters for tally in tallies):
        raise ConfigError(f"None can be replayed of {so_many(sum(left.values()))}.")


def _rows(reports: list[ReplayReport], *, dry_run: bool) -> list[list[str]]:
    def cells(tally: Replayed) -> list[int]:
        tried = tally.delivered + tally.rejected
        counts = [tally.letters] if dry_run else [tried, tally.delivered, tally.rejected]
        return [*counts, tally.left.total()]

    return [
        [report.sync, name, *map(number, cells(tally))]
        for report in reports
        for name, tally in report.destinations.items()
    ]
