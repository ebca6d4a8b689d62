"""The command `retl`: which verbs there are, the global options, and what every verb's end means.

Each verb lives in a module of its group and is imported only when it is called: `retl --help`
must not wait for Arrow, SQLAlchemy or Google's clients. Exit codes are decided in `exits`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from pipeline.cli.early import interrupt_on_signals
from pipeline.cli.exits import ended

# verb: (module of pipeline.cli, the line of `retl --help`)
VERBS = {
    "demo": ("demo", "See six syncs run, everything on this machine and no account needed."),
    "init": ("project", "Write a commented retl.yml to start from."),
    "validate": ("project", "Check the configuration and show all its faults at once."),
    "list": ("project", "Show the syncs of the configuration."),
    "schema": ("project", "Print the JSON Schema of retl.yml, for editors."),
    "doctor": ("doctor", "Check all that a run needs: permissions, keys, state, destinations."),
    "preview": ("preview", "Run a sync's query for a few rows and show what would be sent."),
    "plan": ("plan", "Show what the next run would scan, cost, send and take."),
    "run": ("run", "Run syncs: query, encode, deliver."),
    "runs": ("history", "Show the history of runs, newest first."),
    "dead-letters": ("dead_letters", "Show rows that could not be delivered, and why."),
    "state": ("state", "Show or move the time from which a sync reads; export and import it."),
    "local": ("local", "Run a BigQuery or a Customer.io on this machine, to develop and test."),
}
PANELS = {
    "demo": "Start here",
    "init": "Start here",
    **dict.fromkeys(("validate", "doctor", "list", "schema", "preview", "plan"), "Before a run"),
    **dict.fromkeys(("run",), "Run"),
    **dict.fromkeys(("runs", "dead-letters", "state"), "After a run"),
    "local": "Develop",
}


class LazyGroup(TyperGroup):
    """Holds a stand-in for each verb until it is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put the real verb in the stand-in's place, then go on as usual."""
        verb = args[0] if args else ""
        if verb in VERBS:
            module = importlib.import_module(f"pipeline.cli.{VERBS[verb][0]}")
            self.commands[verb] = get_group(module.app).commands[verb]
        interrupt_on_signals()
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="retl",
    cls=LazyGroup,
    add_completion=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit codes: 0 complete, 64 wrong usage, 65 more rejected than allowed, 70 our own fault, "
        "75 temporary or interrupted (run again), 77 credentials refused, 78 configuration."
    ),
)


def _version(*, value: bool) -> None:
    if value:
        try:
            typer.echo(f"retl {version('bigquery-reverse-etl')}")
        except PackageNotFoundError:
            typer.echo("retl (not installed)")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            envvar="RETL_CONFIG",
            show_default=False,
            help="The configuration file; ./retl.yml when left out.",
        ),
    ] = None,
    _show_version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Rows out of BigQuery into Customer.io, fast, and none of them lost."""
    ctx.obj = config
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def _stand_in() -> None:
    """What `retl --help` lists until the verb is called."""


for _verb, (_module, _line) in VERBS.items():
    app.command(_verb, help=_line, rich_help_panel=PANELS[_verb])(_stand_in)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; never raises but for the interpreter's end."""
    command = get_group(app)
    return ended(
        lambda: command.main(
            args=None if arguments is None else list(arguments),
            prog_name="retl",
            standalone_mode=False,
        )
    )
