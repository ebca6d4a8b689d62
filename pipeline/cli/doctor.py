"""The verb doctor: whether everything a run needs is there, check by check, with the remedies.

What is wrong with the world is data here, not an error: it goes to stdout, a line per check as it
is done. Only the exit code tells of it, by the first failure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from rich.text import Text

from pipeline.cli.context import configured, known_sync
from pipeline.cli.exits import tell
from pipeline.cli.loop import run_async
from pipeline.cli.options import JsonOption, OutputOption
from pipeline.cli.output import Output, plain, print_json, stderr, stdout
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.findings import Finding, Outcome, failed, first_failure
from pipeline.wiring.doctor import examine

STYLES = {
    Outcome.OK: "green",
    Outcome.WARNING: "yellow",
    Outcome.FAILED: "bold red",
    Outcome.SKIPPED: "dim",
}
INDENT = 9
CONFIGURATION = "configuration"

app = typer.Typer()


@app.command()
def doctor(
    ctx: typer.Context,
    *,
    sync: Annotated[
        list[str] | None,
        typer.Option(
            "--sync",
            metavar="NAME",
            help="Only what this sync needs; all syncs when left out. May be repeated.",
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Check all that a run needs: state, credentials, permissions, destinations, keys.

    Every check says ok, warning, failed or skipped, and what to do: a missing permission is told
    with its role and the command that grants it. BigQuery is asked for dry runs and SELECT 1, which
    cost nothing; a destination gets one empty batch, and no person's data. Nothing is changed. The
    exit code is 0, or that of the first failure: 75 temporary, 77 refused, 78 configuration.
    """
    json = as_json or output is Output.JSON
    findings: list[Finding] = []

    def told(finding: Finding) -> None:
        findings.append(finding)
        if not json:
            show(finding)

    try:
        config = configured(ctx)
    except ConfigError as error:
        told(failed(CONFIGURATION, "load", error))
        if not json:
            tell(error)
    else:
        names = [known_sync(config, name) for name in sync or []] or list(config.syncs)
        what = f"syncs: {', '.join(names)}"
        told(Finding(about=CONFIGURATION, check="load", outcome=Outcome.OK, what=what))
        run_async(_examine(config, names, told))
    code = first_failure(findings)
    if json:
        print_json({"findings": [one.as_dict() for one in findings], "exit_code": code})
    else:
        stderr().print(_summary(findings))
    raise typer.Exit(code)


async def _examine(config: Config, names: list[str], told: Callable[[Finding], None]) -> None:
    async for finding in examine(config, names):
        told(finding)


def show(finding: Finding) -> None:
    """A line, and below it what to do."""
    console = stdout()
    outcome = finding.outcome.value.ljust(INDENT)
    what = finding.what
    if finding.about == CONFIGURATION and finding.outcome is Outcome.FAILED:
        what = "see below"  # a list of faults, which errors of other verbs are shown as too
    console.print(
        Text.assemble(
            (outcome, STYLES[finding.outcome]),
            plain(finding.about),
            ("  " + plain(finding.check), "bold"),
            "  " + plain(what),
        )
    )
    if finding.remedy:
        console.print(Text(" " * INDENT + plain(finding.remedy)))
    if finding.command:
        # Never wrapped: it is there to be copied.
        text = Text(" " * INDENT + plain(finding.command), style="cyan")
        console.print(text, soft_wrap=True)


def _summary(findings: list[Finding]) -> str:
    counts = {
        outcome: sum(one.outcome is outcome for one in findings)
        for outcome in (Outcome.FAILED, Outcome.WARNING, Outcome.SKIPPED)
    }
    told = [f"{count} {outcome.value}" for outcome, count in counts.items() if count]
    return f"{len(findings)} checks: {', '.join(told) or 'all fine'}"
