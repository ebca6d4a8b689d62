"""The verb preview: a few rows of a sync's query, and the exact JSON that would be sent.

Row content goes to stdout, on purpose: that is what a preview is for. Nothing is sent anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.highlighter import JSONHighlighter
from rich.text import Text

from pipeline.cli.context import configured, known_sync
from pipeline.cli.loop import run_async
from pipeline.cli.options import OutputOption
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
from pipeline.wiring import preview_sync

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.run.report import Preview, PreviewRow

# The table is for a glance: the payloads below it show everything.
MAX_CELL = 32
MAX_NAMES = 10
# Between two columns.
GAP = 2
# Of one payload on a terminal; --output json shows all of it.
MAX_SHOWN = 2_000

app = typer.Typer()


@app.command()
def preview(
    ctx: typer.Context,
    sync: Annotated[str, typer.Argument(metavar="SYNC", help="The sync's name.")],
    *,
    rows: Annotated[int, typer.Option("--rows", min=1, max=1000, help="How many rows.")] = 10,
    full: Annotated[
        bool, typer.Option("--full", help="Of everything, not only what changed.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run a sync's query for a few rows and show what would be sent.

    Shows the rows, the exact JSON of each, which rows would be invalid and why, and what the
    destination would take but not use as meant. Nothing is sent and no state changes. The query
    is billed like any other.
    """
    config = configured(ctx)
    shown = run_async(preview_sync(config, known_sync(config, sync), rows=rows, full=full))
    if output is Output.JSON:
        print_json(_as_dict(shown))
        return
    console = stdout()
    _print_rows(console, shown)
    console.print()
    for index, row in enumerate(shown.rows, start=1):
        print_payload(console, index, row)
    valid = sum(row.invalid is None for row in shown.rows)
    warned = sum(bool(row.warnings) for row in shown.rows)
    stderr().print(
        f"{shown.sync}: {valid} valid{f' ({warned} with warnings)' if warned else ''},"
        f" {len(shown.rows) - valid} invalid; the whole query scans {size(shown.bytes_processed)}."
    )


def _as_dict(shown: Preview) -> dict[str, object]:
    return {
        "sync": shown.sync,
        "call": shown.call,
        "sql": shown.sql,
        "bytes_processed": shown.bytes_processed,
        "columns": [{"name": field.name, "type": str(field.type)} for field in shown.table.schema],
        "rows": [
            {
                "payload": ready_json(row.payload),
                "invalid": row.invalid
                and {"reason": row.invalid.reason, "message": row.invalid.message},
                "warnings": list(row.warnings),
            }
            for row in shown.rows
        ],
    }


def _print_rows(console: Console, shown: Preview) -> None:
    names = shown.table.schema.names
    if not shown.table.num_rows:
        console.print(f"No rows. Columns: {plain(', '.join(names))}")
        if shown.window.start:
            stderr().print(f"Nothing since {moment(shown.window.start)}; --full shows all.")
        return
    # Column names may repeat, so columns are taken by place.
    grid, room = table({}, ()), console.width
    fitting: list[list[Text]] = []
    for place, name in enumerate(names):
        cells = [_cell(value) for value in shown.table.column(place).to_pylist()]
        heading = Text(plain(name))
        room -= max(map(len, [heading, *cells])) + GAP
        if room < -GAP and fitting:
            break
        grid.add_column(heading, no_wrap=True, overflow="ellipsis")
        fitting.append(cells)
    for row in zip(*fitting, strict=True):
        grid.add_row(*row)
    console.print(grid)
    left = [plain(name) for name in names[len(fitting) :]]
    if left:
        some = ", ".join(left[:MAX_NAMES]) + (", ..." if len(left) > MAX_NAMES else "")
        console.print(Text(f"and {number(len(left))} columns more: {some}", style="dim"))


def _cell(value: object) -> Text:
    if value is None:
        return Text("null", style="dim")
    if isinstance(value, list | dict):
        value = orjson.dumps(value, default=str).decode()
    text = plain(str(value)).replace("\n", "\\n")
    return Text(text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…")


def print_payload(console: Console, index: int, row: PreviewRow) -> None:
    """One row as it would go out, and what there is to say of it."""
    nbytes = len(row.payload)
    head = Text(f"{index}  {size(nbytes)}  ", style="dim")
    if row.invalid is not None:
        head.append(f"invalid: {row.invalid.reason}", style="bold red")
        head.append(f"  {plain(row.invalid.message)}", style="red")
    console.print(head)
    for warning in row.warnings:
        console.print(Text(f"warning: {plain(warning)}", style="yellow"))
    text = plain(row.payload[:MAX_SHOWN].decode(errors="replace"))
    body = JSONHighlighter()(text)
    if nbytes > MAX_SHOWN:
        body.append(f" … {number(nbytes - MAX_SHOWN)} bytes more", style="dim")
    console.print(body, soft_wrap=True)
