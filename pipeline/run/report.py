"""What a Run or a preview came to, for people and for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.errors import PipelineError, SourceError
from pipeline.model import Call, Counts, DeadLetter, Result, Window
from pipeline.ports import WHOLE, Shard

_INTERRUPTED = SourceError.exit_code  # temporary: run again


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """One Run, this process's part and what earlier ones had done; of a shared one, its shard.

    run: its id; empty when it never began. rows: in the source, None when unknown.
    bytes_billed: by this process's queries. slot_ms, cache_hit: of the query that was read,
        whichever process ran it.
    seconds: of this process. destinations: by name.
    restarts: how often this process began to read anew, by reason: session_expired, or
        result_expired, when the query ran again too.
    shard: which part of the run this process had.
    """

    sync: str
    run: str
    result: Result
    window: Window
    query_started: int | None
    rows: int | None
    bytes_processed: int
    bytes_billed: int
    seconds: float
    destinations: Mapping[str, Counts]
    error: PipelineError | None = None
    slot_ms: int = 0
    cache_hit: bool = False
    restarts: Mapping[str, int] = field(default_factory=dict)
    shard: Shard = WHOLE

    @property
    def exit_code(self) -> int:
        """As of sysexits.h; see docs/operations.md."""
        if self.error is not None:
            return self.error.exit_code
        return 0 if self.result is Result.COMPLETE else _INTERRUPTED

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "sync": self.sync,
            "run": self.run,
            "shard": None if self.shard == WHOLE else asdict(self.shard),
            "result": self.result.value,
            "exit_code": self.exit_code,
            "window": asdict(self.window),
            "query_started": self.query_started,
            "rows": self.rows,
            "bytes_processed": self.bytes_processed,
            "bytes_billed": self.bytes_billed,
            "slot_ms": self.slot_ms,
            "cache_hit": self.cache_hit,
            "seconds": round(self.seconds, 3),
            "destinations": {name: asdict(counts) for name, counts in self.destinations.items()},
            "restarts": dict(self.restarts),
            "error": str(self.error) if self.error is not None else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewRow:
    """payload: the JSON that would be sent. invalid: why it would not.

    warnings: what the destination would take and not do as meant; of valid rows.
    """

    payload: bytes
    invalid: DeadLetter | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The first rows of a sync: as they come, and as they would go out."""

    sync: str
    call: Call
    sql: str
    window: Window
    bytes_processed: int
    table: pa.Table
    rows: tuple[PreviewRow, ...]
