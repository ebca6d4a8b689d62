"""The verb state: show, set or reset the time from which a sync reads; move it all elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sized
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pipeline.cli.context import configured, known_sync
from pipeline.cli.exits import END_INTERRUPTED
from pipeline.cli.loop import run_async
from pipeline.cli.options import JsonOption, OutputOption
from pipeline.cli.output import Output, moment, number, plain, print_json, stderr, stdout, table
from pipeline.cli.state_view import (
    COLUMNS,
    never_run,
    print_state,
    state_as_dict,
    state_row,
    what_now,
)
from pipeline.errors import PipelineError
from pipeline.wiring import open_store
from pipeline.wiring.plan import plan_sync

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.ports import Store

app = typer.Typer()
state_app = typer.Typer(no_args_is_help=True)
_HELP = "Show or move the time from which a sync reads; export and import it."
app.add_typer(state_app, name="state", help=_HELP)

SyncArgument = Annotated[str, typer.Argument(metavar="SYNC", help="The sync's name.")]


@contextmanager
def store_of(config: Config) -> Iterator[Store]:
    """The configuration's store, closed afterwards. Raises StateError."""
    with closing(open_store(config)) as store:
        yield store


@state_app.command()
def show(
    ctx: typer.Context,
    sync: Annotated[
        str | None,
        typer.Argument(metavar="SYNC", help="Of this sync only.", show_default=False),
    ] = None,
    *,
    output: OutputOption = Output.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Show from when the next runs read, how the last ones ended, and what runs now."""
    config = configured(ctx)
    chosen = None if sync is None else known_sync(config, sync)
    with store_of(config) as store:
        known = {one.name: one for one in store.syncs()}
        names = [*dict.fromkeys([*config.syncs, *known])] if chosen is None else [chosen]
        states = [known.get(name, never_run(name)) for name in names]
        lasts = [next(iter(store.runs(name, 1)), None) for name in names]
    told = [state_as_dict(state, last) for state, last in zip(states, lasts, strict=True)]
    if as_json or output is Output.JSON:
        print_json(told if chosen is None else told[0])
    elif chosen is None:
        stdout().print(table(COLUMNS, map(state_row, states, lasts)))
        gone = [name for name in names if name not in config.syncs]
        if gone:
            stderr().print(f"Not in the configuration any more: {plain(', '.join(gone))}.")
    else:
        print_state(states[0], lasts[0])


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
    since = f"from {moment(start)} on" if start else "everything"
    _move(config, known_sync(config, sync), start, since)


@state_app.command()
def reset(
    ctx: typer.Context,
    sync: SyncArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask, and don't count.")] = False,
    count: Annotated[
        bool,
        typer.Option(
            "--count/--no-count",
            help="Before asking, count the rows by a query, if no full run tells how many.",
        ),
    ] = True,
) -> None:
    """Let the next run of a sync read everything again. Abandons an unfinished run.

    Asks first, and names the rows that will be sent: as many as the last full run read, or else
    counted by a query, which is billed like a run's.
    """
    config = configured(ctx)
    name = known_sync(config, sync)
    if not (yes or sys.stdin.isatty()):
        raise typer.BadParameter(
            "resetting sends every row again; without a terminal to ask on, say --yes.",
            param_hint="--yes",
        )
    rows = _how_many(config, name, count=count and not yes)
    if not yes:
        where = ", ".join(config.syncs[name].destinations)
        what = f"The next run of {name} sends everything to {where}: {rows}. Go on?"
        if not typer.confirm(what, err=True):
            stderr().print("Nothing changed.")
            raise typer.Exit(END_INTERRUPTED)
    _move(config, name, 0, f"everything: {rows}")


def _how_many(config: Config, name: str, *, count: bool) -> str:
    """The rows of a full run, in words; counted only when no earlier one tells."""
    with store_of(config) as store:
        last = store.last_full_run(name)
    if last is not None and last.rows is not None:
        return f"about {number(last.rows)} rows, as many as its last full run ({last.id}) read"
    if not count:
        return "every row of its query"
    if config.syncs[name].query is not None:
        stderr().print("Counting the rows, by a query (--no-count leaves it out) ...")
    try:
        planned = run_async(plan_sync(config, name, sample=0, count=True, full=True))
    except PipelineError as error:
        return f"every row (they can't be counted: {plain(str(error))})"
    if planned.rows is None:
        return "every row (how many is not known)"
    about = "about " if planned.rows_known_by == "estimate" else ""
    return f"{about}{number(planned.rows)} rows"


def _move(config: Config, name: str, start: int, since: str) -> None:
    with store_of(config) as store:
        store.set_window(name, start)
    stderr().print(f"{name}: the next run reads {since}.")


@state_app.command("export")
def export_state(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Left out: standard output.", show_default=False),
    ] = None,
    *,
    history: Annotated[
        bool, typer.Option("--history", help="The ended runs too, with their reports.")
    ] = False,
) -> None:
    """Write the syncs' windows as JSON, to be imported into another state.

    No payload is in it, and so no dead letters. The window of an unfinished run is in it as not
    sent yet: wherever it is imported, it is sent from its beginning, under the same message ids.
    """
    with store_of(configured(ctx)) as store:
        document = store.export_state(history=history)
        states = store.syncs()
    if file is None:
        print_json(document)
    else:
        _write(file, json.dumps(document, indent=2) + "\n")
    console = stderr()
    for state in states:
        if state.unfinished is not None:
            what = f"{state.name}: {what_now(state)}; in the export its window is not sent yet."
            console.print(Text(plain(what), style="yellow"))
    if file is not None:
        console.print(f"Exported to {plain(str(file))}: {_syncs(states)}.")


def _write(file: Path, text: str) -> None:
    """All of it or nothing; for the owner only, since errors of runs name tables and hosts."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        try:
            new.touch(mode=0o600)
            new.write_text(text, encoding="utf-8")
            new.replace(file)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        what = f"{file} can't be written: {error.strerror}."
        raise typer.BadParameter(what, param_hint="FILE") from error


@state_app.command("import")
def import_state(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What export wrote; - is standard input.")
    ],
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also where a sync here is further, or has an unfinished run."
        ),
    ] = False,
) -> None:
    """Set the syncs' windows, and add the runs, of an exported state: all of it, or nothing.

    Refused where a sync here is further than in the file or has an unfinished run, unless
    --force is given; and always while a sync of the file is running.
    """
    config = configured(ctx)
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        document = json.loads(text)
    except OSError as error:
        what = f"{file} can't be read: {error.strerror}."
        raise typer.BadParameter(what, param_hint="FILE") from error
    except ValueError as error:
        what = f"{file} is not JSON. `retl state export FILE` writes one."
        raise typer.BadParameter(what, param_hint="FILE") from error
    with store_of(config) as store:
        done = store.import_state(document, force=force)
    console = stderr()
    runs = "1 run" if done.runs == 1 else f"{number(done.runs)} runs"
    console.print(f"Imported: {_syncs(done.syncs)} and {runs}.")
    if done.kept:
        kept = plain(", ".join(done.kept))
        console.print(f"These had runs here, and keep only those: {kept}.")
    unknown = [name for name in done.syncs if name not in config.syncs]
    if unknown:
        console.print(f"Not in the configuration: {plain(', '.join(unknown))}.")


def _syncs(named: Sized) -> str:
    return "1 sync" if len(named) == 1 else f"{number(len(named))} syncs"


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
