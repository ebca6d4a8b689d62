"""The verb local: a BigQuery or a Customer.io on this machine, to develop and test with.

When it is ready it prints one line of JSON with its addresses; SIGINT or SIGTERM ends it with 0.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.loop import Stopping, run_async
from pipeline.cli.output import print_json_line
from pipeline.errors import ConfigError
from pipeline.local.faults import FaultPlan

# The modules that the extra [local] brings.
EXTRA = ("duckdb", "sqlglot")

app = typer.Typer()
local_app = typer.Typer(no_args_is_help=True)
app.add_typer(local_app, name="local", help="A BigQuery or a Customer.io on this machine.")


class Mode(StrEnum):
    """What the local Customer.io does with what it gets."""

    FULL = "full"
    SINK = "sink"


class Oversize(StrEnum):
    """What it does with calls over the size limits."""

    DROP = "drop"
    REFUSE = "413"


HostOption = Annotated[str, typer.Option("--host", help="Loopback unless you know better.")]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free port.")]
FaultsOption = Annotated[
    Path | None,
    typer.Option("--faults", help="A fault plan in YAML.", exists=True, dir_okay=False),
]
# The demo's way to say: end when I am gone, however I went.
ParentOption = Annotated[bool, typer.Option("--end-with-stdin", hidden=True)]


@local_app.command()
def bigquery(
    *,
    host: HostOption = "127.0.0.1",
    port: PortOption = 0,
    storage_port: Annotated[
        int, typer.Option("--storage-port", min=0, max=65535, help="Of the Storage Read API.")
    ] = 0,
    database: Annotated[
        Path | None,
        typer.Option("--database", help="Keep tables in this file; in memory when left out."),
    ] = None,
    synthetic: Annotated[
        list[str] | None,
        typer.Option(
            "--synthetic",
            metavar="users=N",
            help="Serve a ready-made table bench.users of N rows, for benchmarks.",
        ),
    ] = None,
    faults: FaultsOption = None,
    end_with_stdin: ParentOption = False,
) -> None:
    """A BigQuery on this machine: REST jobs and the Storage Read API, over DuckDB."""
    require_extra()
    from pipeline.local.bigquery.server import Address, serve  # noqa: PLC0415 - an optional extra

    def ready(address: Address) -> None:
        print_json_line({"rest": address.rest, "storage": address.storage})

    def serving(stop: asyncio.Event) -> Coroutine[Any, Any, None]:
        return serve(
            host=host,
            port=port,
            storage_port=storage_port,
            database=database,
            synthetic=_tables(synthetic or []),
            faults=_plan(faults),
            ready=ready,
            stop=stop,
        )

    _serve(serving, end_with_stdin=end_with_stdin)


@local_app.command()
def customerio(
    *,
    host: HostOption = "127.0.0.1",
    port: PortOption = 0,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="An API key to accept; any when left out. May be repeated."),
    ] = None,
    record: Annotated[
        Path | None, typer.Option("--record", help="Keep what arrives in this NDJSON file.")
    ] = None,
    unique: Annotated[
        bool, typer.Option("--unique", help="Count distinct message ids; takes memory.")
    ] = False,
    mode: Annotated[
        Mode, typer.Option("--mode", help="Validate every call, or only count requests.")
    ] = Mode.FULL,
    latency: Annotated[
        float, typer.Option("--latency", min=0, help="Seconds added to every answer.")
    ] = 0.0,
    rate_limit: Annotated[
        float | None, typer.Option("--rate-limit", min=0.001, help="Requests per second; then 429.")
    ] = None,
    oversize: Annotated[
        Oversize, typer.Option("--oversize", help="Calls over the limit: drop, or answer 413.")
    ] = Oversize.DROP,
    faults: FaultsOption = None,
    end_with_stdin: ParentOption = False,
) -> None:
    """A Customer.io on this machine: the Data Pipelines API with its documented rules."""
    from pipeline.local.customerio import serve  # noqa: PLC0415 - `local bigquery` has no need

    def ready(address: str) -> None:
        print_json_line({"url": address})

    def serving(stop: asyncio.Event) -> Coroutine[Any, Any, None]:
        return serve(
            host=host,
            port=port,
            keys=key or None,
            record=record,
            unique=unique,
            mode=mode.value,
            latency=latency,
            rate_limit=rate_limit,
            oversize=oversize.value,
            faults=_plan(faults),
            ready=ready,
            stop=stop,
        )

    _serve(serving, end_with_stdin=end_with_stdin)


def _serve(
    serving: Callable[[asyncio.Event], Coroutine[Any, Any, None]], *, end_with_stdin: bool
) -> None:
    async def until_stopped(stopping: Stopping) -> None:
        stop = stopping.event()
        if end_with_stdin:
            loop = asyncio.get_running_loop()
            threading.Thread(target=_end_with_stdin, args=(loop, stop), daemon=True).start()
        await serving(stop)

    with Stopping("", hurried=0) as stopping:
        run_async(until_stopped(stopping))


def _end_with_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    sys.stdin.buffer.read()
    if not loop.is_closed():
        loop.call_soon_threadsafe(stop.set)


def require_extra() -> None:
    """Raises ConfigError when the extra [local] is not installed."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"The local BigQuery needs {' and '.join(missing)}. Install the extra that brings it:"
            " pip install 'bigquery-reverse-etl[local]'"
        )


def _plan(path: Path | None) -> FaultPlan | None:
    return None if path is None else FaultPlan.parse(path.read_text(encoding="utf-8"))


def _tables(given: list[str]) -> dict[str, int]:
    tables: dict[str, int] = {}
    for text in given:
        name, _, rows = text.partition("=")
        if not name or not rows.isdigit():
            raise typer.BadParameter(f"'{text}' is not NAME=ROWS.", param_hint="--synthetic")
        tables[name] = int(rows)
    return tables
