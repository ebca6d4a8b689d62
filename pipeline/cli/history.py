"""Verbs about what was: the history of runs, and the dead letters.

A list of dead letters never shows row content; `dead-letters show` does, because it was asked to.
Syncs that have left the configuration keep their history, so names are not checked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.highlighter import JSONHighlighter
from rich.text import Text

from pipeline.cli.context import configured
from pipeline.cli.options import LimitOption, OutputOption
from pipeline.cli.output import (
    Output,
    moment,
    number,
    plain,
    print_json,
    ready_json,
    size,
    stderr,
    stdout,
    table,
)
from pipeline.cli.state import store_of
from pipeline.model import Counts

if TYPE_CHECKING:
    from pipeline.ports import DeadLetterRecord, RunRecord

app = typer.Typer()
letters_app = typer.Typer(no_args_is_help=True)
app.add_typer(letters_app, name="dead-letters", help="Rows that could not be delivered, and why.")

SyncArgument = Annotated[
    str | None, typer.Argument(metavar="SYNC", help="Of this sync only.", show_default=False)
]


@app.command()
def runs(
    ctx: typer.Context,
    sync: SyncArgument = None,
    *,
    limit: LimitOption = 20,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the history of runs, newest first."""
    with store_of(configured(ctx)) as store:
        records = store.runs(sync, limit)
    if output is Output.JSON:
        print_json([_run_as_dict(record) for record in records])
        return
    if not records:
        stderr().print(f"No runs yet{_of_whom(ctx, sync)}.")
        return
    # The id of a run holds its sync's name, so that a narrow terminal has room for the numbers.
    columns = {"run": "whole", "result": "whole"} | dict.fromkeys(
        ("read", "delivered", "dead", "seconds", "billed"), "right"
    )
    several = any(len(record.counts) > 1 for record in records)
    if several:
        columns |= {"destination": "left"}
    rows = [row for record in records for row in _run_rows(record)]
    stdout().print(table(columns, [row if several else row[:-1] for row in rows]))
    for record in records:
        if record.error:
            stderr().print(Text(f"{record.id}: {plain(record.error)}"))


def _of_whom(ctx: typer.Context, sync: str | None) -> str:
    """What to add to «none»: a sync that is unknown may be a slip."""
    syncs = configured(ctx).syncs
    if sync is None or sync in syncs:
        return ""
    return f"; there is no sync {plain(sync)} in the configuration (there are: {', '.join(syncs)})"


def _run_rows(record: RunRecord) -> list[list[str]]:
    """A row for each destination: each of them gets every row of the source."""
    seconds = None if record.finished is None else record.finished - record.started
    return [
        [
            record.id,
            "running" if record.result is None else str(record.result),
            number(counts.read),
            number(counts.delivered),
            number(counts.dead_lettered),
            "-" if seconds is None else f"{seconds:.1f}",
            size(record.bytes_billed),
            destination,
        ]
        for destination, counts in (record.counts or {"": Counts()}).items()
    ]


def _run_as_dict(record: RunRecord) -> dict[str, object]:
    return {
        "run": record.id,
        "sync": record.sync,
        "result": record.result,
        "started": record.started,
        "finished": record.finished,
        "window_start": record.window.start,
        "query_started": record.query_started,
        "rows": record.rows,
        "bytes_billed": record.bytes_billed,
        "destinations": {name: _counts(counts) for name, counts in record.counts.items()},
        "error": record.error or None,
    }


def _counts(counts: Counts) -> dict[str, int]:
    names = ("read", "delivered", "dead_lettered", "requests", "retries", "bytes_sent")
    return {name: getattr(counts, name) for name in names}


@letters_app.command("list")
def list_letters(
    ctx: typer.Context,
    sync: SyncArgument = None,
    *,
    run: Annotated[
        str | None, typer.Option("--run", help="Of this run only.", show_default=False)
    ] = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show dead letters and their reasons, newest first; never their content."""
    with store_of(configured(ctx)) as store:
        records = store.dead_letters(sync, run, limit)
    if output is Output.JSON:
        print_json([_letter_as_dict(record) for record in records])
        return
    if not records:
        stderr().print(f"No dead letters{_of_whom(ctx, sync)}.")
        return
    columns = {
        "id": "right",
        "at": "whole",
        "sync": "left",
        "destination": "left",
        "reason": "whole",
        "message": "left",
    }
    stdout().print(table(columns, map(_letter_row, records)))
    if len(records) == limit:
        stderr().print(f"The newest {limit}; --limit shows more.")


def _letter_row(record: DeadLetterRecord) -> list[str]:
    letter = record.letter
    return [
        str(record.id),
        moment(record.at),
        record.sync,
        record.destination,
        letter.reason,
        letter.message,
    ]


def _letter_as_dict(record: DeadLetterRecord) -> dict[str, object]:
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
        "bytes": len(letter.payload),
    }


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
    if output is Output.JSON:
        print_json(_letter_as_dict(record) | {"payload": ready_json(record.letter.payload)})
        return
    console = stdout()
    for name, value in _letter_as_dict(record).items():
        told = moment(record.at) if name == "at" else str(value)
        console.print(Text.assemble((f"{name:<12}", "bold"), plain(told)))
    payload = plain(record.letter.payload.decode(errors="replace"))
    console.print(JSONHighlighter()(payload), soft_wrap=True)
