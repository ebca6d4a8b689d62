"""The query job: dry run, guards, an own job id, and BigQuery's own clock. Blocking.

A job's id is made from the run's key, so that a second try finds the job of the first instead of
paying for the query again; a job that failed, or ran another query, is followed by the next number.
Whoever stops waiting says whether the job is kept: a run that is gone on with finds it again and
lets it run, what nobody will come back for is cancelled.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from google.api_core.exceptions import Conflict
from google.api_core.retry import Retry
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY

from pipeline.errors import ConfigError, PipelineError, SourceError
from pipeline.ports import DryRun
from pipeline.source.faults import failed_job, translated
from pipeline.source.job import Job, QueryResult
from pipeline.source.parameter_wire import as_google_takes
from pipeline.source.parameters import Parameter

# One REST call, its retries included, in seconds: an endpoint that is down is an answer soon.
_PATIENCE = 60.0
# Cancelling is tried for so long; a job whose cancelling was not heard of runs on to its end.
_CANCEL_PATIENCE = 5.0
# How long a job that ran out of time gets to end after it was cancelled.
_LAST_WORD = 30.0
_FIRST_POLL, _LAST_POLL = 0.05, 2.0
# In BigQuery's words for a job that is there already: "Already Exists: Job project:location.id".
_EXISTING = re.compile(r"Job [^\s]+?:([A-Za-z0-9-]+)\.")
# BigQuery's reasons for a job that was ended before its time.
_STOPPED = frozenset({"stopped", "timeout"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """What all queries of one sync have in common.

    timeout: seconds from the job's creation, waiting for slots included; None: BigQuery's own.
    """

    maximum_bytes_billed: int
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: str = "interactive"
    timeout: float | None = None
    parameters: Sequence[Parameter] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A dry run. at: Unix seconds, by BigQuery's clock, at which it was made, if it says so."""

    dry_run: DryRun
    at: int | None


class QueryJobs:
    """Queries of one source for one sync. where: for messages. client: made on first use."""

    def __init__(
        self,
        client: Callable[[], bigquery.Client],
        *,
        where: str,
        settings: JobSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect, self._where, self._settings = client, where, settings
        self._clock = clock
        self._abandoned = threading.Event()
        self._client: bigquery.Client | None = None
        self._retry: Retry = DEFAULT_RETRY.with_timeout(_PATIENCE)
        self.activity = ""
        """What the job is at, while one is waited for; read from any thread."""

    def dry_run(self, sql: str) -> DryRun:
        """Check the query without running it. Raises ConfigError if it may not run."""
        return self.check(sql).dry_run

    def check(self, sql: str, what: str = "the query") -> Checked:
        """The same, with BigQuery's time. what: what would scan so much, for messages."""
        with translated(self._where):
            job = self._opened().query(
                sql,
                job_config=bigquery.QueryJobConfig(
                    use_legacy_sql=False,
                    dry_run=True,
                    use_query_cache=False,
                    query_parameters=[as_google_takes(each) for each in self._settings.parameters],
                ),
                retry=self._retry,
                job_retry=None,
                timeout=_PATIENCE,
            )
        kind = job.statement_type or "statement of unknown type"
        if kind != "SELECT":
            raise ConfigError(
                f"{self._where}: {what} is a {kind}, and only a single SELECT may run. "
                "A sync reads; do everything else outside it."
            )
        scanned, allowed = job.total_bytes_processed or 0, self._settings.maximum_bytes_billed
        if scanned > allowed:
            raise ConfigError(
                f"{self._where}: {what} would scan {scanned:,} bytes, more than "
                f"`maximum_bytes_billed` allows ({allowed:,}). Narrow it (partitions, fewer "
                "columns), or raise the limit of the source."
            )
        return Checked(
            dry_run=DryRun(
                bytes_processed=scanned,
                statement_type=kind,
                columns=tuple(column.name for column in job.schema or ()),
            ),
            at=int(job.created.timestamp()) if job.created else None,
        )

    def kind_of(self, table: str) -> str:
        """What `project.dataset.table` is: TABLE, VIEW, MATERIALIZED_VIEW, EXTERNAL, SNAPSHOT."""
        with translated(self._where):
            found = self._opened().get_table(table, retry=self._retry, timeout=_PATIENCE)
        return str(found.table_type)

    def run(self, sql: str, key: str, *, kept: bool = True) -> QueryResult:
        """Run the query, or find the one that runs or ran under this key, and wait for it.

        kept: whether anybody will look for the job again; if not, it is cancelled when the wait
        for it ends without its result.
        """
        try:
            with translated(self._where):
                for number in count():
                    job = self._start(sql, f"{key}_{number}")
                    self._wait(job, kept=kept)
                    if not (job.found and (job.error_result or job.query != sql)):
                        break
            if job.error_result:
                raise self._failed(job, job.error_result.get("reason", "unknown"))
            return job.result()
        finally:
            self.activity = ""

    def abandon(self) -> None:
        """Stop waiting for a job."""
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

    def _start(self, sql: str, job_id: str) -> Job:
        client, settings = self._opened(), self._settings
        config = bigquery.QueryJobConfig(
            use_legacy_sql=False,
            labels=dict(settings.labels),
            maximum_bytes_billed=settings.maximum_bytes_billed,
            priority=settings.priority.upper(),
            query_parameters=[as_google_takes(each) for each in settings.parameters],
        )
        if settings.timeout is not None:
            config.job_timeout_ms = round(settings.timeout * 1000)
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
            # Its parameters are not compared: a run goes on only with a sync that did not change.
            return Job(found, found=True)
        return Job(job, found=False)

    def _wait(self, job: Job, *, kept: bool) -> None:
        """Until the job is done; a job that is not kept is cancelled when that goes wrong."""
        try:
            self._until_done(job)
        except BaseException:
            if not kept:
                self._cancel(job)
            raise

    def _until_done(self, job: Job) -> None:
        """Raises SourceError when abandoned, ConfigError when the job was out of time."""
        began, pause = self._clock(), _FIRST_POLL
        limit, cancelled = self._settings.timeout, None
        while job.job.state != "DONE":
            passed = self._clock() - began
            self.activity = job.activity(passed)
            if limit is not None and cancelled is None and passed > limit:
                # BigQuery keeps the time too, but promises no more than to try.
                self._cancel(job)
                cancelled = passed
            elif cancelled is not None and passed > cancelled + _LAST_WORD:
                raise self._too_slow(job)
            if self._abandoned.wait(pause):
                raise SourceError(f"{self._where}: the run was stopped while its query ran.")
            pause = min(pause * 1.5, _LAST_POLL)
            job.job.reload(retry=self._retry, timeout=_PATIENCE)
        if cancelled is not None and job.error_result:
            raise self._too_slow(job)

    def _cancel(self, job: Job) -> None:
        """Ask BigQuery to stop the job; what it says to that changes nothing for us."""
        with suppress(PipelineError), translated(self._where):
            job.job.cancel(retry=self._retry.with_timeout(_CANCEL_PATIENCE), timeout=_PATIENCE)

    def _failed(self, job: Job, reason: str) -> PipelineError:
        limit = self._settings.timeout
        if limit is not None and reason in _STOPPED and job.seconds >= limit:
            return self._too_slow(job)
        return failed_job(self._where, job.id, reason)

    def _too_slow(self, job: Job) -> ConfigError:
        return ConfigError(
            f"{self._where}: the query took longer than `query_timeout` allows "
            f"({self._settings.timeout:g} s) and was cancelled. Narrow it, or raise the limit of "
            f"the source; `bq show -j {job.id}` tells where its time went."
        )
