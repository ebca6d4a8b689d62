"""One run in full, for people and for programs. Knows neither row content nor where it is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from rich.text import Text

from pipeline.cli.output import moment, number, plain, size, table
from pipeline.model import Counts

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.model import Reading
    from pipeline.ports import RunDetail, RunRecord, ShardState

_WIDTH = 14
# A file source has one for each file.
_DETAILS = 8


def run_as_dict(record: RunRecord) -> dict[str, object]:
    """A run of the history, JSON-ready."""
    return {
        "run": record.id,
        "sync": record.sync,
        "result": record.result,
        "started": record.started,
        "finished": record.finished,
        "window_start": record.window.start,
        "query_started": record.query_started,
        "rows": record.rows,
        "bytes_billed": record.bytes_billed,
        "restart_count": record.restarts,
        "destinations": {name: _counts(counts) for name, counts in record.counts.items()},
        "error": record.error or None,
        "job": record.job,
        "shards": record.shards,
    }


def shard_as_dict(shard: ShardState) -> dict[str, object]:
    """A shard of a run that goes on, JSON-ready."""
    return {
        "index": shard.index,
        "done": shard.done,
        "running_on": shard.holder,
        "destinations": {name: _counts(counts) for name, counts in shard.counts.items()},
    }


def _counts(counts: Counts) -> dict[str, int]:
    names = ("read", "delivered", "dead_lettered", "requests", "retries", "bytes_sent")
    return {name: getattr(counts, name) for name in names}


def detail_as_dict(detail: RunDetail) -> dict[str, object]:
    """All of a run, JSON-ready: the keys of `run_as_dict` and more."""
    record = detail.record
    return run_as_dict(record) | {
        "window": {"start": record.window.start, "sequence": record.window.sequence},
        "attempt": detail.attempt,
        "unfinished": detail.unfinished,
        "query_of": detail.query_key,
        "attempts": [
            {"run": one.id, "result": one.result, "error": one.error or None}
            for one in detail.attempts
        ],
        "reading": None if detail.reading is None else _reading(detail.reading),
        "settled": dict(detail.settled),
        "restarts": restarts(detail),
        "dead_letters": [
            {"destination": destination, "reason": reason, "letters": letters}
            for (destination, reason), letters in detail.dead_letters.items()
        ],
        "reports": list(detail.reports),
        "shard_states": [shard_as_dict(shard) for shard in detail.shards],
    }


def _reading(reading: Reading) -> dict[str, object]:
    return {
        "streams": len(reading.streams),
        "rows": reading.rows,
        "rows_exact": reading.rows_exact,
        "estimated_bytes": reading.estimated_bytes,
        "query_started": reading.query_started,
        "expires": reading.expires,
        "bytes_processed": reading.bytes_processed,
        "bytes_billed": reading.bytes_billed,
        "slot_ms": reading.slot_ms,
        "cache_hit": reading.cache_hit,
        "details": dict(reading.details),
    }


def restarts(detail: RunDetail) -> dict[str, int]:
    """How often its processes began to read anew, by reason, as they reported."""
    found: Counter[str] = Counter()
    for report in detail.reports:
        told = report.get("restarts")
        if isinstance(told, Mapping):
            found.update({reason: int(times) for reason, times in told.items()})
    return dict(found)


def print_detail(console: Console, detail: RunDetail) -> None:
    """All of a run as text: its facts, then tables of what it did."""
    for name, value in _facts(detail):
        console.print(Text.assemble((f"{name:<{_WIDTH}}", "bold"), plain(value)))
    counts = detail.record.counts
    if counts:
        columns = ("read", "delivered", "dead", "requests", "retries", "sent", "settled")
        rows = [_destination_row(name, each, detail) for name, each in counts.items()]
        console.print()
        console.print(table({"destination": "left"} | dict.fromkeys(columns, "right"), rows))
    if detail.shards:
        columns_of_shards = {"shard": "right", "now": "whole", "destination": "left"}
        columns_of_shards |= dict.fromkeys(("read", "delivered", "dead"), "right")
        console.print()
        console.print(
            table(columns_of_shards, [row for one in detail.shards for row in _shard_rows(one)])
        )
    if detail.dead_letters:
        shown = [
            [destination, reason, number(letters)]
            for (destination, reason), letters in detail.dead_letters.items()
        ]
        console.print()
        columns_of_letters = {"destination": "left", "reason": "left", "dead letters": "right"}
        console.print(table(columns_of_letters, shown))
    if len(detail.attempts) > 1:
        console.print()
        attempts = [[one.id, _result(one), one.error] for one in detail.attempts]
        columns_of_runs = {"attempts on this window": "whole", "result": "left", "error": "left"}
        console.print(table(columns_of_runs, attempts))
    if detail.reports:
        console.print()
        numbers = ("code", "seconds", "billed", "restarts")
        columns_of_reports = {"processes": "left"} | dict.fromkeys(numbers, "right")
        console.print(table(columns_of_reports, map(_report_row, detail.reports)))


def _facts(detail: RunDetail) -> Iterator[tuple[str, str]]:
    record, reading = detail.record, detail.reading
    start = record.window.start
    yield "run", record.id
    yield "sync", record.sync
    goes_on = " (the next run goes on with it)" if detail.unfinished and record.result else ""
    yield "result", f"{_result(record)}{goes_on}"
    yield "started", moment(record.started)
    yield "finished", moment(record.finished)
    since = f"from {start} ({moment(start)})" if start else "everything"
    yield "window", f"{since}, number {record.window.sequence}"
    yield "attempt", str(detail.attempt)
    if record.job is not None:
        yield "shared by", f"{record.shards} shards of Job {record.job}"
    if detail.query_key is not None:
        yield "query of", detail.query_key
    if reading is not None:
        yield "query started", moment(reading.query_started)
        exact = "" if reading.rows_exact else " (an estimate)"
        yield "rows", f"{number(reading.rows)}{exact}, in {number(len(reading.streams))} streams"
        took = "cached" if reading.cache_hit else f"{reading.slot_ms / 1000:,.1f} s of slots"
        billed, processed = size(reading.bytes_billed), size(reading.bytes_processed)
        yield "query", f"{processed} processed, {billed} billed, {took}"
        if reading.expires is not None:
            yield "readable till", moment(reading.expires)
        for name, value in islice(reading.details.items(), _DETAILS):
            yield "read", f"{name}: {value}"
        if len(reading.details) > _DETAILS:
            yield "", f"and {number(len(reading.details) - _DETAILS)} more; --json has all"
    again = restarts(detail)
    if again:
        yield "restarts", ", ".join(f"{times} {reason}" for reason, times in again.items())
    if record.error:
        yield "error", record.error


def _result(record: RunRecord) -> str:
    return "running" if record.result is None else str(record.result)


def _destination_row(name: str, counts: Counts, detail: RunDetail) -> list[str]:
    return [
        name,
        number(counts.read),
        number(counts.delivered),
        number(counts.dead_lettered),
        number(counts.requests),
        number(counts.retries),
        size(counts.bytes_sent),
        number(detail.settled.get(name, 0)),
    ]


def _shard_rows(shard: ShardState) -> list[list[str]]:
    """A row for each destination, by what was committed."""
    return [
        [
            str(shard.index),
            shard_now(shard),
            destination or "-",
            number(counts.read),
            number(counts.delivered),
            number(counts.dead_lettered),
        ]
        for destination, counts in (shard.counts or {"": Counts()}).items()
    ]


def shard_now(shard: ShardState) -> str:
    """What it is at, in words."""
    if shard.done:
        return "complete"
    return "nobody has it" if shard.holder is None else f"running on {shard.holder}"


def _report_row(report: Mapping[str, object]) -> Sequence[str]:
    """What one process reported; a report of another version may lack any of it."""
    seconds, billed, again = (report.get(key) for key in ("seconds", "bytes_billed", "restarts"))
    shard, result = report.get("shard"), str(report.get("result", "-"))
    return [
        f"shard {shard.get('index')}: {result}" if isinstance(shard, Mapping) else result,
        str(report.get("exit_code", "-")),
        f"{seconds:.1f}" if isinstance(seconds, int | float) else "-",
        size(billed if isinstance(billed, int) else None),
        number(sum(again.values()) if isinstance(again, Mapping) else None),
    ]
