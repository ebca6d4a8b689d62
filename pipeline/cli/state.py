"""The verb state: show, set or reset the time from which a sync reads."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.context import configured, known_sync
from pipeline.cli.exits import END_INTERRUPTED
from pipeline.cli.options import OutputOption
from pipeline.cli.output import Output, moment, number, print_json, stderr, stdout
from pipeline.wiring import open_store

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.ports import Store

app = typer.Typer()
state_app = typer.Typer(no_args_is_help=True)
app.add_typer(state_app, name="state", help="The time from which a sync reads.")

SyncArgument = Annotated[str, typer.Argument(metavar="SYNC", help="The sync's name.")]


@contextmanager
def store_of(config: Config) -> Iterator[Store]:
    """The configuration's store, closed afterwards. Raises StateError."""
    with closing(open_store(config)) as store:
        yield store


@state_app.command()
def show(ctx: typer.Context, sync: SyncArgument, *, output: OutputOption = Output.TABLE) -> None:
    """Show from when the next run of a sync reads, and how its last run ended."""
    config = configured(ctx)
    name = known_sync(config, sync)
    with store_of(config) as store:
        window = store.window(name)
        last = next(iter(store.runs(name, 1)), None)
    result = None if last is None else last.result or "running"
    if output is Output.JSON:
        print_json(
            {
                "sync": name,
                "last_sync_time": window.start,
                "completed_runs": window.sequence - 1,
                "last_run": None if last is None else last.id,
                "last_result": result,
            }
        )
        return
    since = f"{window.start} ({moment(window.start)})" if window.start else "0 (everything)"
    console = stdout()
    console.print(f"sync            {name}")
    console.print(f"last sync time  {since}")
    console.print(f"completed runs  {number(window.sequence - 1)}")
    console.print(f"last run        {'-' if last is None else f'{last.id}, {result}'}")


@state_app.command("set")
def set_time(
    ctx: typer.Context,
    sync: SyncArgument,
    at: Annotated[
        str,
        typer.Argument(metavar="TIME", help="Unix seconds or ISO 8601; UTC when it names no zone."),
    ],
) -> None:
    """Let the next run of a sync read from TIME on. Abandons an unfinished run."""
    start = unix_seconds(at)
    config = configured(ctx)
    _move(config, known_sync(config, sync), start)


@state_app.command()
def reset(
    ctx: typer.Context,
    sync: SyncArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Let the next run of a sync read everything again. Abandons an unfinished run."""
    config = configured(ctx)
    name = known_sync(config, sync)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter(
                "resetting sends every row again; without a terminal to ask on, say --yes.",
                param_hint="--yes",
            )
        if not typer.confirm(f"The next run of {name} sends every row again. Go on?", err=True):
            stderr().print("Nothing changed.")
            raise typer.Exit(END_INTERRUPTED)
    _move(config, name, 0)


def _move(config: Config, name: str, start: int) -> None:
    with store_of(config) as store:
        store.set_window(name, start)
    since = f"from {moment(start)} on" if start else "everything"
    stderr().print(f"{name}: the next run reads {since}.")


def unix_seconds(text: str) -> int:
    """A time as Unix seconds. Raises a usage error when it isn't one or lies in the future."""
    try:
        seconds = int(text)
    except ValueError:
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            raise typer.BadParameter(
                f"'{text}' is no time. Give Unix seconds (1764000000) or ISO 8601"
                " (2026-11-24T16:00:00Z).",
                param_hint="TIME",
            ) from None
        seconds = int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
    if not 0 <= seconds <= time.time():
        raise typer.BadParameter(
            f"'{text}' is not between 1970 and now. A later time would leave rows out.",
            param_hint="TIME",
        )
    return seconds
