"""What a verb prints: data on stdout as a table or JSON, everything else on stderr.

Text from outside (rows, answers, names) is made harmless before it reaches a terminal. Consoles
are made when needed, so that whoever redirects a stream gets what is printed after.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TextIO

import orjson
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

# Wide enough that a line in a file or pipe is never wrapped.
UNBOUNDED = 4_000


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


def stdout() -> Console:
    """Where data goes."""
    return _console(sys.stdout)


def stderr() -> Console:
    """Where all else goes."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    told = stream.isatty() or "COLUMNS" in os.environ
    return Console(file=stream, highlight=False, markup=False, width=None if told else UNBOUNDED)


def plain(text: str) -> str:
    """Text with its control characters spelled out as JSON does, but for line ends and tabs."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else json.dumps(letter)[1:-1]
        for letter in text
    )


def print_json(value: object) -> None:
    """One JSON document, indented, on stdout. Takes orjson.Fragment for ready JSON."""
    _write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def print_json_line(value: object) -> None:
    """One JSON document on one line of stdout, flushed."""
    _write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))


def _write(data: bytes) -> None:
    sys.stdout.write(data.decode())
    sys.stdout.flush()


def ready_json(data: bytes) -> object:
    """JSON bytes as they are, for print_json; text when they are not JSON."""
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return data.decode(errors="replace")
    return orjson.Fragment(data)


def table(columns: Mapping[str, str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A sober table. columns: heading -> "left" (folded), "whole" (not folded) or "right"."""
    made = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    for heading, kind in columns.items():
        made.add_column(
            heading,
            justify="right" if kind == "right" else "left",
            no_wrap=kind != "left",
            overflow="fold",
        )
    for row in rows:
        made.add_row(*(Text(plain(cell)) if isinstance(cell, str) else cell for cell in row))
    return made


def fitted(
    console: Console,
    columns: Mapping[str, str],
    rows: Iterable[Sequence[str | Text]],
    *,
    spare: Sequence[str],
) -> Table:
    """A `table` that leaves out as many of the `spare` columns, in their order, as it must to fit.

    What does not fit even so is folded.
    """
    left, cells = dict(columns), [list(row) for row in rows]
    unbounded = console.options.update(width=UNBOUNDED)
    for heading in (None, *spare):
        if heading in left:
            place = list(left).index(heading)
            del left[heading]
            for row in cells:
                del row[place]
        made = table(left, cells)
        if Measurement.get(console, unbounded, made).maximum <= console.width:
            break
    return made


def number(value: float | None) -> str:
    """1234567 as 1,234,567; a dash when there is none."""
    return "-" if value is None else f"{value:,.0f}"


def rate(rows: int, seconds: float) -> str:
    """Rows per second; a dash when there was no row or no time."""
    return number(rows / seconds) if rows and seconds > 0 else "-"


def size(nbytes: int | None) -> str:
    """Bytes in the unit a person would choose, decimal."""
    if nbytes is None:
        return "-"
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def moment(seconds: float | None) -> str:
    """Unix seconds as ISO 8601 in UTC; a dash when there are none."""
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
