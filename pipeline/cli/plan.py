"""The verb plan: what the next run would cost and take. Nothing is sent, no state changes.

A sync that can't be planned does not keep the next from it, nor a sample that fails what the dry
run said; the exit code is the worst of all. A block per sync, which fits a narrow terminal. The
payloads of the sample go to stdout, as those of a preview do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pipeline.cli.context import chosen_syncs, configured
from pipeline.cli.exits import tell, worst
from pipeline.cli.loop import run_async
from pipeline.cli.options import JsonOption, OutputOption
from pipeline.cli.output import (
    Output,
    number,
    plain,
    print_json,
    ready_json,
    size,
    stderr,
    stdout,
    table,
)
from pipeline.cli.preview import print_payload
from pipeline.errors import PipelineError
from pipeline.run.plan import LanePlan, Plan
from pipeline.wiring.plan import LATENCY, plan_sync

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pipeline.config import Config

UNKNOWN = "unknown"
_MINUTE, _HOUR = 60.0, 3600.0
_WIDTH = 7
_KNOWN_BY = {
    "count": ", counted",
    "sample": ", all of them in the sample",
    "source": "",
    "estimate": " by BigQuery's estimate; --rows counts them",
    "unknown": "; --rows counts them, by a query",
}

app = typer.Typer()


@app.command()
def plan(
    ctx: typer.Context,
    syncs: Annotated[
        list[str] | None,
        typer.Argument(metavar="SYNC", help="Names of syncs.", show_default=False),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every sync of the file.")] = False,
    rows: Annotated[
        bool,
        typer.Option("--rows", help="Count the rows, by a query that is billed like a run's."),
    ] = False,
    sample: Annotated[
        int,
        typer.Option(
            "--sample",
            min=0,
            max=10_000,
            help="Rows to encode. The query runs once for it, billed like a run's; 0: only a "
            "dry run, which is free.",
        ),
    ] = 100,
    full: Annotated[
        bool, typer.Option("--full", help="Of everything, not only what changed.")
    ] = False,
    latency: Annotated[
        float,
        typer.Option("--latency", min=0, help="Seconds that an answer is taken to need."),
    ] = LATENCY,
    output: OutputOption = Output.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Show what the next run would scan, cost, send and take.

    The dry run says what is scanned. A sample of rows is encoded: its payloads give the requests,
    the share of invalid rows and what a workspace would ignore. How many rows there are is known
    when the sample holds them all, and else with --rows. Nothing is sent and no state changes.
    """
    config = configured(ctx)
    names = chosen_syncs(config, syncs or [], [], everything=everything)
    plans: dict[str, Plan | PipelineError] = {}
    for name in names:
        plans[name] = _planned(config, name, sample=sample, count=rows, full=full, latency=latency)
    made = [one for one in plans.values() if isinstance(one, Plan)]
    if as_json or output is Output.JSON:
        print_json({"plans": [_as_dict(name, one) for name, one in plans.items()]})
    else:
        _print(stdout(), made)
    found = {name: one.error if isinstance(one, Plan) else one for name, one in plans.items()}
    errors = {name: error for name, error in found.items() if error is not None}
    for name, error in errors.items():
        tell(error, about=name)
    queries = sum(one.queries for one in made)
    stderr().print(
        f"Nothing was sent. {number(queries)} {'query was' if queries == 1 else 'queries were'} "
        f"started for {'this plan' if len(names) == 1 else 'these plans'}; seconds are of sending "
        f"alone, with answers in {latency:g} s."
    )
    raise typer.Exit(worst(error.exit_code for error in errors.values()))


def _planned(
    config: Config, name: str, *, sample: int, count: bool, full: bool, latency: float
) -> Plan | PipelineError:
    try:
        return run_async(
            plan_sync(config, name, sample=sample, count=count, full=full, latency=latency)
        )
    except PipelineError as error:
        return error


def _as_dict(name: str, one: Plan | PipelineError) -> Mapping[str, object]:
    if isinstance(one, PipelineError):
        return {"sync": name, "exit_code": one.exit_code, "error": str(one)}
    shown = [
        {
            "payload": ready_json(row.payload),
            "invalid": row.invalid and row.invalid.reason,
            "warnings": list(row.warnings),
        }
        for row in one.lanes[0].sample.shown
    ]
    return one.as_dict() | {"payloads": shown}


def _print(console: Console, plans: Sequence[Plan]) -> None:
    for place, one in enumerate(plans):
        if place:
            console.print()
        console.print(Text.assemble((plain(one.sync), "bold"), f"  {one.call}"))
        for name, value in _facts(one):
            console.print(Text.assemble((f"{name:<{_WIDTH}}", "bold"), value))
        console.print(_table(one))
        for line in _lines(one):
            console.print(line)
        for index, row in enumerate(one.lanes[0].sample.shown, start=1):
            if index == 1:
                console.print()
                console.print(Text("first rows of the sample", style="bold"))
            print_payload(console, index, row)


def _facts(one: Plan) -> Iterator[tuple[str, str]]:
    priced = "" if one.cost is None else f", {_dollars(one.cost)}"
    yield "scans", f"{size(one.bytes_processed)}{priced}"
    yield "rows", f"{_or_unknown(one.rows)}{_KNOWN_BY[one.rows_known_by]}"


def _table(one: Plan) -> Table:
    numbers = dict.fromkeys(("invalid", "calls", "requests", "sending"), "right")
    rows = [
        [
            lane.destination,
            _share(lane),
            _or_unknown(lane.calls),
            _or_unknown(lane.requests),
            UNKNOWN if lane.seconds is None else _duration(lane.seconds),
            lane.bound.removeprefix("send.").removeprefix("rate_limit."),
        ]
        for lane in one.lanes
    ]
    return table({"destination": "left"} | numbers | {"bound by": "whole"}, rows)


def _lines(one: Plan) -> Iterator[Text]:
    for lane in one.lanes:
        where = f"{lane.destination}: " if len(one.lanes) > 1 else ""
        for reason, count in lane.sample.invalid.items():
            what = f"{reason}: {number(count)} of {number(lane.sample.rows)} rows of the sample"
            yield _line("invalid", where + what, "red")
        for warning, count in lane.sample.warnings.items():
            what = f"{warning} ({number(count)} of the sample)"
            yield _line("warning", where + what, "yellow")
    for note in one.notes:
        yield _line("warning", note, "yellow")
    if one.error is not None:
        what = "the look at the rows failed; what is unknown here would have come of it"
        yield _line("incomplete", what, "red")


def _line(kind: str, what: str, style: str) -> Text:
    return Text.assemble((f"{kind}: ", style), plain(what))


def _or_unknown(value: int | None) -> str:
    return UNKNOWN if value is None else number(value)


def _share(lane: LanePlan) -> str:
    """Of the sample's rows, those that would not be sent."""
    sample = lane.sample
    if not sample.rows:
        return UNKNOWN
    return f"{100 * (sample.rows - sample.valid) / sample.rows:.3g} %"


def _dollars(cost: float | None) -> str:
    if cost is None:
        return "-"
    return "<$0.01" if 0 < cost < 0.005 else f"${cost:,.2f}"


def _duration(seconds: float) -> str:
    """In the unit a person would choose."""
    if seconds < 1:
        return "<1 s" if seconds else "0 s"
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"
