"""Verbs about what was: the history of runs.

Syncs that have left the configuration keep their history, so names are not checked here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from pipeline.cli.context import configured, of_whom
from pipeline.cli.options import JsonOption, LimitOption, OutputOption
from pipeline.cli.output import Output, fitted, number, plain, print_json, size, stderr, stdout
from pipeline.cli.run_view import detail_as_dict, print_detail, run_as_dict
from pipeline.cli.state import store_of
from pipeline.model import Counts

if TYPE_CHECKING:
    from pipeline.ports import RunRecord

app = typer.Typer()

SyncArgument = Annotated[
    str | None, typer.Argument(metavar="SYNC", help="Of this sync only.", show_default=False)
]


class _ListByDefault(TyperGroup):
    """`retl runs users` is `retl runs list users`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb where none is named."""
        first = args[0] if args else ""
        if first not in self.commands and first not in ctx.help_option_names:
            args = ["list", *args]
        return super().parse_args(ctx, args)


runs_app = typer.Typer(cls=_ListByDefault)
_RUNS_HELP = (
    "Show the history of runs, newest first.\n\n`retl runs [SYNC]` is `retl runs list [SYNC]`."
)
app.add_typer(runs_app, name="runs", help=_RUNS_HELP)


@runs_app.command("list")
def list_runs(
    ctx: typer.Context,
    sync: SyncArgument = None,
    *,
    limit: LimitOption = 20,
    output: OutputOption = Output.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Show the runs of one sync or all, newest first."""
    with store_of(configured(ctx)) as store:
        records = store.runs(sync, limit)
    if as_json or output is Output.JSON:
        print_json([run_as_dict(record) for record in records])
        return
    if not records:
        stderr().print(f"No runs yet{of_whom(configured(ctx), sync)}.")
        return
    _print_runs(records)
    for record in records:
        if record.error:
            stderr().print(Text(f"{record.id}: {plain(record.error)}"))


@runs_app.command("show")
def show_run(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="ID", help="As `retl runs` shows it.")],
    *,
    output: OutputOption = Output.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Show all that is kept of one run: window, attempts, reading, counts, errors, reports."""
    with store_of(configured(ctx)) as store:
        detail = store.run(run)
    if detail is None:
        raise typer.BadParameter(
            f"there is no run '{plain(run)}'. `retl runs` shows them.", param_hint="ID"
        )
    if as_json or output is Output.JSON:
        print_json(detail_as_dict(detail))
    else:
        print_detail(stdout(), detail)


def _print_runs(records: Sequence[RunRecord]) -> None:
    # The id of a run holds its sync's name. It is folded where the numbers need the room.
    numbers = ("read", "delivered", "dead", "seconds", "billed", "restarts")
    columns = {"run": "left", "result": "whole"} | dict.fromkeys(numbers, "right")
    if not any(record.restarts for record in records):
        del columns["restarts"]
    if any(len(record.counts) > 1 for record in records):
        columns["destination"] = "left"
    rows = [[row[name] for name in columns] for record in records for row in _run_rows(record)]
    console = stdout()
    console.print(fitted(console, columns, rows, spare=("billed", "seconds")))


def _run_rows(record: RunRecord) -> list[dict[str, str]]:
    """Cells by heading, for each destination: each of them gets every row of the source."""
    seconds = None if record.finished is None else record.finished - record.started
    return [
        {
            "run": record.id,
            "result": "running" if record.result is None else str(record.result),
            "read": number(counts.read),
            "delivered": number(counts.delivered),
            "dead": number(counts.dead_lettered),
            "seconds": "-" if seconds is None else f"{seconds:.1f}",
            "billed": size(record.bytes_billed),
            "restarts": number(record.restarts),
            "destination": destination,
        }
        for destination, counts in (record.counts or {"": Counts()}).items()
    ]
