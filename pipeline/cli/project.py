"""Verbs about the configuration file: init, validate, list, schema. None asks a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.context import configured
from pipeline.cli.options import OutputOption
from pipeline.cli.output import Output, print_json, stderr, stdout, table
from pipeline.config import EXAMPLE, json_schema
from pipeline.errors import ConfigError

DEFAULT_FILE = Path("retl.yml")

app = typer.Typer()


@app.command()
def init(
    ctx: typer.Context,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
) -> None:
    """Write a commented retl.yml to start from."""
    path: Path = ctx.obj or DEFAULT_FILE
    if path.exists() and not force:
        raise typer.BadParameter(f"{path} exists. --force overwrites it.", param_hint="--force")
    try:
        path.write_text(EXAMPLE, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}.") from error
    stderr().print(f"Wrote {path}. Set the variables it names, then: retl validate")


@app.command()
def validate(ctx: typer.Context, *, output: OutputOption = Output.TABLE) -> None:
    """Check the configuration and show all its faults at once.

    Reads the file, the secrets it names and the environment; asks no service. Exit code 78 when
    there are faults.
    """
    try:
        config = configured(ctx)
    except ConfigError as error:
        if output is Output.TABLE:
            raise
        faults = [
            {"where": fault.where, "what": fault.what, "remedy": fault.remedy}
            for fault in error.faults
        ]
        faults = faults or [{"where": "", "what": str(error), "remedy": ""}]
        print_json({"valid": False, "faults": faults})
        raise typer.Exit(error.exit_code) from None
    counts = {
        "sources": len(config.sources),
        "destinations": len(config.destinations),
        "syncs": len(config.syncs),
    }
    if output is Output.JSON:
        print_json({"valid": True, "faults": [], **counts})
        return
    parts = (f"{count} {name if count != 1 else name[:-1]}" for name, count in counts.items())
    stdout().print(f"OK: {', '.join(parts)}")


@app.command("list")
def list_syncs(ctx: typer.Context, *, output: OutputOption = Output.TABLE) -> None:
    """Show the syncs of the configuration."""
    syncs = configured(ctx).syncs
    if output is Output.JSON:
        print_json(
            [
                {
                    "sync": name,
                    "description": sync.description,
                    "call": sync.call,
                    "source": sync.source,
                    "destinations": list(sync.destinations),
                    "tags": list(sync.tags),
                }
                for name, sync in syncs.items()
            ]
        )
        return
    columns = dict.fromkeys(("sync", "call", "from", "to", "tags", "description"), "left")
    rows = (
        (
            name,
            str(sync.call),
            sync.source,
            ", ".join(sync.destinations),
            ", ".join(sync.tags),
            sync.description,
        )
        for name, sync in syncs.items()
    )
    stdout().print(table(columns, rows))


@app.command()
def schema() -> None:
    """Print the JSON Schema of retl.yml, for editors.

    An editor completes and checks the file when it knows the schema:
    retl schema > retl.schema.json, and as the file's first line
    # yaml-language-server: $schema=retl.schema.json
    """
    print_json(json_schema())
