"""How the demo ends: one table of both rounds, whether it adds up, and where to look next."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.cli.exits import END_INTERNAL
from pipeline.cli.output import number, plain, rate, table
from pipeline.cli.run import Ended, Refused
from pipeline.cli.state import store_of
from pipeline.config import Config
from pipeline.model import Counts, Result

# More reasons than this are not the demo's.
MOST_LETTERS = 1_000


def fetch_stats(url: str) -> Mapping[str, Any]:
    """What the local Customer.io says it received."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/_local/stats", timeout=30) as answer:
        stats: dict[str, Any] = json.load(answer)
    return stats


def show(
    console: Console,
    config: Config,
    rounds: Sequence[Sequence[Ended]],
    stats: Mapping[str, Any],
    *,
    folder: Path,
    again: str,
) -> int:
    """Print how it went and what to try next; the demo's exit code."""
    console.print()
    console.print(_table(rounds))
    console.print()
    faults = check(rounds, stats)
    delivered = sum(_counts(one).delivered for ended in rounds for one in ended)
    if not faults:
        text = f"{number(delivered)} rows delivered, as many arrived at Customer.io"
        console.print(Text.assemble(("ok  ", "green"), text))
    for fault in faults:
        console.print(Text.assemble(("WRONG  ", "bold red"), plain(fault)))
    _print_letters(console, config)
    _print_next(console, folder, again)
    return END_INTERNAL if faults else 0


def check(rounds: Sequence[Sequence[Ended]], stats: Mapping[str, Any]) -> list[str]:
    """What does not add up; empty when all does."""
    faults = []
    for place, ended in enumerate(rounds, start=1):
        for one in ended:
            counts, where = _counts(one), f"round {place}, {one.sync}"
            if one.error is not None:
                faults.append(f"{where}: {one.error}")
            elif one.result is not Result.COMPLETE:
                faults.append(f"{where}: not complete")
            settled = counts.delivered + counts.dead_lettered
            if counts.read != settled:
                faults.append(f"{where}: {counts.read:,} rows read, but {settled:,} settled")
    delivered = sum(_counts(one).delivered for ended in rounds for one in ended)
    if stats["accepted"] != delivered:
        faults.append(f"{delivered:,} rows delivered, but {stats['accepted']:,} arrived")
    faults += [f"{count:,} calls dropped: {reason}" for reason, count in stats["dropped"].items()]
    first, second = (sum(_counts(one).read for one in ended) for ended in rounds)
    if second > first:
        faults.append(f"the second round read {second:,} rows, more than the first's {first:,}")
    return faults


def _counts(one: Ended) -> Counts:
    return Counts() if isinstance(one, Refused) else sum(one.destinations.values(), Counts())


def _table(rounds: Sequence[Sequence[Ended]]) -> Table:
    columns = {"round": "left", "sync": "left"} | dict.fromkeys(
        ("read", "delivered", "dead", "requests", "seconds", "rows/s"), "right"
    )
    made = table(columns, ())
    for place, ended in enumerate(rounds, start=1):
        total, seconds = Counts(), 0.0
        for index, one in enumerate(ended):
            counts, took = _counts(one), 0.0 if isinstance(one, Refused) else one.seconds
            total, seconds = total + counts, seconds + took
            made.add_row(str(place) if index == 0 else "", one.sync, *_cells(counts, took))
        made.add_row("", "all", *_cells(total, seconds), style="bold", end_section=True)
    return made


def _cells(counts: Counts, seconds: float) -> list[Text]:
    dead = Text(number(counts.dead_lettered), style="red" if counts.dead_lettered else "")
    texts = (number(counts.requests), f"{seconds:.1f}", rate(counts.read, seconds))
    return [
        Text(number(counts.read)),
        Text(number(counts.delivered)),
        dead,
        *map(Text, texts),
    ]


def _print_letters(console: Console, config: Config) -> None:
    with store_of(config) as store:
        records = store.dead_letters(limit=MOST_LETTERS)
    if not records:
        return
    console.print(f"    {number(len(records))} bad rows kept as dead letters, none dropped:")
    reasons = Counter(
        (record.sync, record.letter.reason, record.letter.message) for record in reversed(records)
    )
    grid = Table.grid(padding=(0, 2, 0, 0))
    for (sync, reason, message), count in reasons.items():
        told = (plain(sync), Text(plain(reason), "red"), Text(plain(message), "dim"))
        grid.add_row(Text(f"{count:>7}"), *told)
    console.print(grid)


def _print_next(console: Console, folder: Path, again: str) -> None:
    retl = f"{_command()} -c {shlex.quote(str(folder / 'retl.yml'))}"
    console.print(Text("\nWhere to look next", "bold"))
    for what, command in (
        ("the rows that failed, and why", f"{retl} dead-letters list"),
        ("the history of runs", f"{retl} runs"),
        ("from when the next run reads", f"{retl} state show users"),
        ("the JSON that is sent: start the local BigQuery again", again),
        ("and in another terminal", f"{retl} preview users --full --rows 3"),
        ("your own", f"{_command()} init"),
    ):
        console.print(Text(f"  # {what}", "dim"))
        console.print(Text(f"  {command}"), soft_wrap=True)


def serve_again(address: Mapping[str, Any], database: Path) -> str:
    """The command that serves the demo's tables again, where its configuration expects them."""
    port, storage = (str(address[name]).rpartition(":")[2] for name in ("rest", "storage"))
    return (
        f"{_command()} local bigquery --port {port} --storage-port {storage}"
        f" --database {shlex.quote(str(database))}"
    )


def _command() -> str:
    """How to call this program from here: `retl` when it is on the PATH."""
    if shutil.which("retl"):
        return "retl"
    beside = Path(sys.executable).with_name("retl")
    command = [str(beside)] if beside.exists() else [sys.executable, "-m", "pipeline"]
    here = f"{Path.cwd()}/"
    return shlex.join([command[0].removeprefix(here), *command[1:]])
