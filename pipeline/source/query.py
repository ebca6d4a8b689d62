"""The query job: dry run, guards, an own job id, and BigQuery's own clock. Blocking.

A job's id is made from the run's key, so that a second try finds the job of the first instead of
paying for the query again; a job that failed, or ran another query, is followed by the next number.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from google.api_core.exceptions import Conflict
from google.api_core.retry import Retry
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY

from pipeline.errors import ConfigError, SourceError
from pipeline.ports import DryRun
from pipeline.source.faults import failed_job, translated

# One REST call, its retries included, in seconds: an endpoint that is down is an answer soon.
_PATIENCE = 60.0
_FIRST_POLL, _LAST_POLL = 0.05, 2.0
# In BigQuery's words for a job that is there already: "Already Exists: Job project:location.id".
_EXISTING = re.compile(r"Job [^\s]+?:([A-Za-z0-9-]+)\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """A query that ran. table: `projects/p/datasets/d/tables/t`. started: Unix seconds."""

    job_id: str
    location: str
    table: str
    started: int
    bytes_processed: int
    bytes_billed: int


class QueryJobs:
    """Queries of one source for one sync. where: for messages. client: made on first use."""

    def __init__(
        self,
        client: Callable[[], bigquery.Client],
        *,
        where: str,
        maximum_bytes_billed: int,
        labels: Mapping[str, str],
    ) -> None:
        self._connect, self._where = client, where
        self._abandoned = threading.Event()
        self._settings: Mapping[str, Any] = {
            "use_legacy_sql": False,
            "labels": dict(labels),
            "maximum_bytes_billed": maximum_bytes_billed,
        }
        self._maximum = maximum_bytes_billed
        self._client: bigquery.Client | None = None
        self._retry: Retry = DEFAULT_RETRY.with_timeout(_PATIENCE)

    def dry_run(self, sql: str) -> DryRun:
        """Check the query without running it. Raises ConfigError if it may not run."""
        with translated(self._where):
            job = self._opened().query(
                sql,
                job_config=bigquery.QueryJobConfig(
                    use_legacy_sql=False, dry_run=True, use_query_cache=False
                ),
                retry=self._retry,
                job_retry=None,
                timeout=_PATIENCE,
            )
        kind = job.statement_type or "statement of unknown type"
        if kind != "SELECT":
            raise ConfigError(
                f"{self._where}: the query is a {kind}, and only a single SELECT may run. "
                "A sync reads; do everything else outside it."
            )
        scanned = job.total_bytes_processed or 0
        if scanned > self._maximum:
            raise ConfigError(
                f"{self._where}: the query would scan {scanned:,} bytes, more than "
                f"`maximum_bytes_billed` allows ({self._maximum:,}). Narrow it (partitions, fewer "
                "columns), or raise the limit of the source."
            )
        return DryRun(bytes_processed=scanned, statement_type=kind)

    def run(self, sql: str, key: str) -> QueryResult:
        """Run the query, or find the one that runs or ran under this key, and wait for it."""
        with translated(self._where):
            for number in count():
                job = self._wait(self._start(sql, f"{key}_{number}"))
                if job.found and (job.error_result or job.query != sql):
                    continue
                if job.error_result:
                    raise failed_job(self._where, job.id, job.error_result.get("reason", "unknown"))
                break
            return job.result()

    def abandon(self) -> None:
        """Stop waiting for a job. It goes on, and the next run of the same key finds it."""
        self._abandoned.set()

    def close(self) -> None:
        """Release connections, unless a call that was abandoned still uses them; idempotent."""
        if self._client is not None and not self._abandoned.is_set():
            self._client.close()
            self._client = None

    def _opened(self) -> bigquery.Client:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _start(self, sql: str, job_id: str) -> _Job:
        client = self._opened()
        config = bigquery.QueryJobConfig(**self._settings)
        try:
            job = client.query(
                sql,
                job_config=config,
                job_id=job_id,
                retry=self._retry,
                job_retry=None,
                timeout=_PATIENCE,
            )
        except Conflict as conflict:
            place = _EXISTING.search(str(conflict))
            location = client.location or (place and place[1])
            found: Any = client.get_job(
                job_id, location=location, retry=self._retry, timeout=_PATIENCE
            )
            return _Job(found, found=True)
        return _Job(job, found=False)

    def _wait(self, job: _Job) -> _Job:
        pause = _FIRST_POLL
        while job.job.state != "DONE":
            if self._abandoned.wait(pause):
                raise SourceError(f"{self._where}: the run was stopped while its query ran.")
            pause = min(pause * 1.5, _LAST_POLL)
            job.job.reload(retry=self._retry, timeout=_PATIENCE)
        return job


class _Job:
    """A job, and whether it was there already."""

    def __init__(self, job: bigquery.QueryJob, *, found: bool) -> None:
        self.job, self.found = job, found
        self.id = f"{job.project}:{job.location}.{job.job_id}"
        self.query = str(job.query)

    @property
    def error_result(self) -> Mapping[str, str] | None:
        result: Mapping[str, str] | None = self.job.error_result
        return result

    def result(self) -> QueryResult:
        job, table = self.job, self.job.destination
        return QueryResult(
            job_id=self.id,
            location=job.location or "",
            table=f"projects/{table.project}/datasets/{table.dataset_id}/tables/{table.table_id}",
            started=int(job.started.timestamp()),
            bytes_processed=job.total_bytes_processed or 0,
            bytes_billed=job.total_bytes_billed or 0,
        )
