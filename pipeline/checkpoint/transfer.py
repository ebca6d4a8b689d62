"""State from one store to another: windows and history as a document of JSON, and back.

Payloads, Checkpoints and what an unfinished run reads stay where they are: the next run at the
other place begins the unfinished one's window again, under the same message ids. All functions
work inside the caller's transaction. A released VERSION's shape is never changed: another shape
is another version, and older ones go on being read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.checkpoint import leases, runs, shards
from pipeline.checkpoint.schema import (
    REPORTS,
    RUNS,
    SYNCS,
    dump_counts,
    dump_reading,
    load_counts,
    load_reading,
    upsert,
)
from pipeline.checkpoint.shard_counts import totals
from pipeline.errors import ConfigError, UnusableState
from pipeline.model import Reading, Result
from pipeline.ports import Imported

FORMAT = "retl-state"
VERSION = 1
_GIVEN_UP = "given up: the state was moved"

_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Sync(_Part):
    last_sync_time: _Count
    completed_runs: _Count


class _Run(_Part):
    run: str
    sync: str
    window_start: _Count
    window_sequence: _Count
    attempt: _Count
    fingerprint: str
    started: float
    finished: float
    result: Result
    error: str
    reading: dict[str, Any] | None
    counts: dict[str, dict[str, _Count]]
    query_key: str | None
    done: str | None
    reports: list[dict[str, Any]]


class _Document(_Part):
    format: Literal["retl-state"]
    version: Literal[1]
    exported: float
    syncs: dict[str, _Sync]
    runs: list[_Run] = []


# ------------------------------------------------------------------------------- export


def export(connection: sa.Connection, *, history: bool, now: float) -> dict[str, object]:
    """The document, JSON-ready."""
    names = connection.scalars(sa.select(SYNCS.c.name).order_by(SYNCS.c.name)).all()
    windows = {
        name: runs.next_window(connection, name, runs.unfinished(connection, name))
        for name in names
    }
    document: dict[str, object] = {
        "format": FORMAT,
        "version": VERSION,
        "exported": now,
        "syncs": {
            name: {"last_sync_time": window.start, "completed_runs": window.sequence - 1}
            for name, window in windows.items()
        },
    }
    if history:
        query = sa.select(RUNS).order_by(RUNS.c.number)
        document["runs"] = [_exported(connection, row, now) for row in connection.execute(query)]
    return document


def _exported(connection: sa.Connection, row: sa.Row[Any], now: float) -> dict[str, object]:
    reports = sa.select(REPORTS.c.report).where(REPORTS.c.run == row.id).order_by(REPORTS.c.id)
    moved = row.unfinished  # it ends here: what it would go on with is not in the document
    return {
        "run": row.id,
        "sync": row.sync,
        "window_start": row.window_start,
        "window_sequence": row.window_sequence,
        "attempt": row.attempt,
        "fingerprint": row.fingerprint,
        "started": row.started,
        "finished": row.finished or now,
        "result": row.result or Result.FAILED.value,
        "error": (row.error or _GIVEN_UP) if moved else row.error,
        "reading": None if row.reading is None else json.loads(row.reading),
        "counts": json.loads(dump_counts(totals(connection, row))),
        "query_key": row.query_key,
        "done": row.done,
        "reports": [json.loads(text) for text in connection.scalars(reports)],
    }


# ------------------------------------------------------------------------------- import


def parse(document: Mapping[str, object]) -> _Document:
    """A document, checked. Raises ConfigError."""
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise ConfigError("This is no exported state: `retl state export FILE` writes one.")
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ConfigError(
            f"This state was exported by a newer retl (format version {version}, this one knows "
            f"{VERSION}): upgrade retl."
        )
    try:
        checked = _Document.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _damaged(".".join(map(str, first["loc"])), first["msg"]) from None
    for index, run in enumerate(checked.runs):
        if run.sync not in checked.syncs:
            raise _damaged(f"runs.{index}.sync", "No such sync is in the document")
        try:
            load_counts(json.dumps(run.counts))
            _reading(run)
        except (TypeError, ValueError, KeyError):
            raise _damaged(f"runs.{index}", "Its reading or counts can't be read") from None
    return checked


def _damaged(where: str, what: str) -> ConfigError:
    return ConfigError(f"The exported state is damaged at {where}: {what}. Export it again.")


def _reading(run: _Run) -> Reading | None:
    return None if run.reading is None else load_reading(json.dumps(run.reading))


def bring_in(
    connection: sa.Connection, document: _Document, *, holder: str, now: float, force: bool
) -> Imported:
    """Write all of it; when anything speaks against it, raise, so that nothing is written."""
    refused = []
    for name, kept in document.syncs.items():
        # Taken and given back: a holder that went silent is fenced off for good.
        leases.take(connection, name, holder=holder, now=now, seconds=0)
        leases.release(connection, name)
        last = runs.unfinished(connection, name)
        here = runs.next_window(connection, name, last)
        if here.start > kept.last_sync_time:
            refused.append(f"{name} is further here ({here.start} after {kept.last_sync_time})")
        elif last is not None:
            refused.append(f"{name} has an unfinished run here ({last.id})")
        if last is not None:
            shards.give_up(connection, last, now, "given up: another state was imported")
        _set_window(connection, name, kept)
    if refused and not force:
        raise UnusableState(
            f"Nothing was imported: {'; '.join(refused)}. --force imports all the same: what was "
            "sent since is sent again, and an unfinished run is given up."
        )
    had = {name for name in document.syncs if _has_runs(connection, name)}
    new = [run for run in document.runs if run.sync not in had]
    _add_runs(connection, new)
    left = {run.sync for run in document.runs} & had
    return Imported(syncs=tuple(document.syncs), runs=len(new), kept=tuple(sorted(left)))


def _set_window(connection: sa.Connection, name: str, kept: _Sync) -> None:
    # A number that was used here must not come again: message ids are made of it.
    before = connection.scalar(sa.select(SYNCS.c.sequence).where(SYNCS.c.name == name)) or 0
    values = {
        "last_sync_time": kept.last_sync_time,
        "sequence": max(before, kept.completed_runs),
    }
    insert = upsert(connection, SYNCS).values(name=name, **values)
    connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=values))


def _has_runs(connection: sa.Connection, sync: str) -> bool:
    query = sa.select(RUNS.c.number).where(RUNS.c.sync == sync).limit(1)
    return connection.scalar(query) is not None


def _add_runs(connection: sa.Connection, added: Sequence[_Run]) -> None:
    """In the order of the document, which is that of their opening."""
    for run in added:
        reading = _reading(run)
        connection.execute(
            sa.insert(RUNS).values(
                id=run.run,
                sync=run.sync,
                window_start=run.window_start,
                window_sequence=run.window_sequence,
                fingerprint=run.fingerprint,
                attempt=run.attempt,
                unfinished=False,
                started=run.started,
                finished=run.finished,
                result=run.result.value,
                error=run.error,
                reading=None if reading is None else dump_reading(reading),
                counts=dump_counts(load_counts(json.dumps(run.counts))),
                query_key=run.query_key,
                done=run.done,
            )
        )
        if run.reports:
            kept = [{"run": run.run, "report": json.dumps(report)} for report in run.reports]
            connection.execute(sa.insert(REPORTS), kept)
