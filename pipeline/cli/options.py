"""Options that several verbs have, told once."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.output import Output

OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="A table for people or JSON for programs.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --output json.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="How many, newest first.")]
