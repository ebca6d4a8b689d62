"""Verbs about dead letters: look at them, take them elsewhere, send them again, forget them.

Lists never show row content; `show` and `export` do, because they were asked to. Syncs that have
left the configuration keep their letters, so names are not checked here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.highlighter import JSONHighlighter
from rich.text import Text

from pipeline.cli.context import configured, of_whom
from pipeline.cli.exits import END_INTERRUPTED
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
from pipeline.cli.options import LimitOption, OutputOption
from pipeline.cli.output import Output, moment, number, plain, print_json, stderr, stdout, table
from pipeline.cli.replay import replay
from pipeline.cli.state import store_of
from pipeline.ports import Obstacle
from pipeline.run.export import Format, export, ready_payload

if TYPE_CHECKING:
    from pipeline.ports import DeadLetterRecord

app = typer.Typer()
letters_app = typer.Typer(no_args_is_help=True)
app.add_typer(letters_app, name="dead-letters", help="Rows that could not be delivered, and why.")


@letters_app.command("list")
def list_letters(
    ctx: typer.Context,
    sync: SyncArgument = None,
    *,
    run: RunOption = None,
    destination: DestinationOption = None,
    reason: ReasonOption = None,
    since: SinceOption = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show dead letters and their reasons, newest first; never their content."""
    which, config = which_letters(sync, run, destination, reason, since), configured(ctx)
    with store_of(config) as store:
        records = store.dead_letters(which, limit)
    if output is Output.JSON:
        print_json([_as_dict(record) for record in records])
        return
    if not records:
        stderr().print(f"No dead letters{of_whom(config, sync)}.")
        return
    columns = {
        "id": "right",
        "at": "whole",
        "sync": "left",
        "destination": "left",
        "reason": "whole",
        "message": "left",
    }
    stdout().print(table(columns, map(_row, records)))
    if len(records) == limit:
        stderr().print(f"The newest {limit}; --limit shows more.")


def _row(record: DeadLetterRecord) -> list[str]:
    letter = record.letter
    return [
        str(record.id),
        moment(record.at),
        record.sync,
        record.destination,
        letter.reason,
        letter.message,
    ]


def _as_dict(record: DeadLetterRecord) -> dict[str, object]:
    letter = record.letter
    return {
        "id": record.id,
        "at": record.at,
        "sync": record.sync,
        "run": record.run,
        "destination": record.destination,
        "stream": letter.stream,
        "row": letter.row,
        "reason": letter.reason,
        "message": letter.message,
        "kept": record.kept.value,
        "encrypted": record.sealed,
        "bytes": len(letter.payload),
    }


@letters_app.command()
def summary(
    ctx: typer.Context,
    sync: SyncArgument = None,
    *,
    run: RunOption = None,
    destination: DestinationOption = None,
    reason: ReasonOption = None,
    since: SinceOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Count dead letters by sync, destination and reason."""
    which, config = which_letters(sync, run, destination, reason, since), configured(ctx)
    with store_of(config) as store:
        counts = store.dead_letter_summary(which)
    if output is Output.JSON:
        print_json([count._asdict() for count in counts])
        return
    if not counts:
        stderr().print(f"No dead letters{of_whom(config, sync)}.")
        return
    columns = {"sync": "left", "destination": "left", "reason": "whole", "letters": "right"}
    stdout().print(table(columns, ([*count[:3], number(count.letters)] for count in counts)))


@letters_app.command()
def show(
    ctx: typer.Context,
    number_: Annotated[int, typer.Argument(metavar="ID", help="As `list` shows it.")],
    *,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one dead letter with its payload, which is row content."""
    with store_of(configured(ctx)) as store:
        record = store.dead_letter(number_)
    if record is None:
        raise typer.BadParameter(
            f"there is no dead letter {number_}. `retl dead-letters list` shows them.",
            param_hint="ID",
        )
    if record.sealed:
        stderr().print(f"Its payload is {WHY[Obstacle.SEALED]}.")
    if output is Output.JSON:
        print_json(_as_dict(record) | {"payload": ready_payload(record)})
        return
    console = stdout()
    for name, value in _as_dict(record).items():
        told = moment(record.at) if name == "at" else str(value)
        console.print(Text.assemble((f"{name:<12}", "bold"), plain(told)))
    payload = plain(record.letter.payload.decode(errors="replace"))
    console.print(JSONHighlighter()(payload), soft_wrap=True)


@letters_app.command("export")
def export_letters(
    ctx: typer.Context,
    sync: SyncArgument = None,
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="PATH|URI",
            help="A file, or a folder if it ends in `/`; also gs://, s3://, abfs://.",
        ),
    ],
    form: Annotated[
        Format | None,
        typer.Option(
            "--format", help="Left out: parquet for *.parquet, else ndjson.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
    run: RunOption = None,
    destination: DestinationOption = None,
    reason: ReasonOption = None,
    since: SinceOption = None,
) -> None:
    """Write dead letters to a file, with their payloads, which are row content. They stay."""
    which = which_letters(sync, run, destination, reason, since)
    if form is None:
        form = Format.PARQUET if to.endswith(".parquet") else Format.NDJSON
    with store_of(configured(ctx)) as store:
        done = export(store, which, to, form, overwrite=force)
    stderr().print(Text(f"Wrote {so_many(done.letters)} to {plain(done.path)}."))
    if done.sealed:
        stderr().print(f"{number(done.sealed)} without payload: {WHY[Obstacle.SEALED]}.")


@letters_app.command()
def clear(
    ctx: typer.Context,
    sync: SyncArgument = None,
    *,
    run: RunOption = None,
    destination: DestinationOption = None,
    reason: ReasonOption = None,
    since: SinceOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Forget dead letters for good. Their rows are not sent again, unless they change."""
    which, config = which_letters(sync, run, destination, reason, since), configured(ctx)
    with store_of(config) as store:
        count = sum(one.letters for one in store.dead_letter_summary(which))
        if not count:
            stderr().print(f"No dead letters{of_whom(config, sync)}.")
            return
        if not yes:
            if not sys.stdin.isatty():
                raise typer.BadParameter(
                    f"this forgets {so_many(count)} for good; without a terminal to "
                    "ask on, say --yes.",
                    param_hint="--yes",
                )
            if not typer.confirm(f"Forget {so_many(count)} for good?", err=True):
                stderr().print("Nothing changed.")
                raise typer.Exit(END_INTERRUPTED)
        cleared = store.clear_dead_letters(which)
    stderr().print(f"Forgot {so_many(cleared)}.")


letters_app.command()(replay)
