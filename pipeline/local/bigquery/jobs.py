"""Query jobs: their configuration, states, statistics and result tables.

A job runs in a thread. As at BigQuery, an insert with a new id always succeeds when its
configuration is well formed; what is wrong with the SQL is found out by the job and stays in its
status. A SELECT's rows land in an anonymous table that lives a day. Nothing is cached.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp

from pipeline.local.bigquery import execute, parameters, sql
from pipeline.local.bigquery.catalog import interrupt
from pipeline.local.bigquery.errors import LocalError, already_exists, unsupported
from pipeline.local.bigquery.plan import Plan
from pipeline.local.bigquery.sql import Defaults, TableName
from pipeline.local.bigquery.types import Column
from pipeline.local.bigquery.warehouse import Warehouse

_log = logging.getLogger(__name__)

RESULT_SECONDS = 24 * 3600.0  # https://cloud.google.com/bigquery/docs/cached-results
_KEPT_JOBS = 10_000
_INTERRUPT_SECONDS = 0.02
_MEGABYTE = 1 << 20
# The smallest bill per table: https://cloud.google.com/bigquery/pricing#on_demand_pricing
_LEAST_BILLED = 10 * _MEGABYTE


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One job. Times are Unix seconds; `done` resolves, always to None, when it ended.

    timeout: seconds from its creation. cancelled: why it was asked to end early; else empty.
    """

    project: str
    id: str
    query: str
    configuration: dict[str, Any]
    created: float
    labels: Mapping[str, str]
    parameters: Mapping[str, exp.Expr] = field(default_factory=dict)
    timeout: float | None = None
    done: Future[None] = field(default_factory=Future)
    state: str = "PENDING"
    started: float | None = None
    ended: float | None = None
    error: LocalError | None = None
    kind: str = ""
    nbytes: int = 0
    billed: int = 0
    reads: tuple[TableName, ...] = ()
    columns: tuple[Column, ...] = ()
    result: TableName | None = None
    rows: int | None = None
    changed_rows: int | None = None
    target: TableName | None = None
    cancelled: str = ""
    cursor: Any = None


class Jobs:
    """All jobs of one warehouse. clock: Unix seconds."""

    def __init__(
        self,
        warehouse: Warehouse,
        *,
        threads: int = 8,
        result_seconds: float = RESULT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.warehouse = warehouse
        self._clock = clock
        self._result_seconds = result_seconds
        self._jobs: dict[tuple[str, str], Job] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="local-bigquery-job")

    def close(self) -> None:
        """Cancel what runs and wait for its end; idempotent."""
        for job in self.all():
            if job.state != "DONE":
                self.cancel(job)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def all(self, project: str | None = None) -> list[Job]:
        """Newest first."""
        with self._lock:
            jobs = list(self._jobs.values())
        return [job for job in reversed(jobs) if project in (None, job.project)]

    def get(self, project: str, job_id: str) -> Job:
        """Raises LocalError(notFound)."""
        with self._lock:
            job = self._jobs.get((project, job_id))
        if job is None:
            raise LocalError("notFound", f"Not found: Job {project}:{job_id}")
        return job

    def dry_run(self, project: str, configuration: Mapping[str, Any]) -> Job:
        """A finished job that ran nothing and is not kept. Raises all that the query would."""
        job = self._new(project, "", configuration)
        statements = sql.parse(job.query)
        job.kind = sql.script_type(statements)
        if len(statements) == 1:
            bound = parameters.bind(statements[0], job.parameters, job.query)
            plan = execute.prepare(
                self.warehouse, bound, _defaults(project, job.configuration), job.query
            )
            self._note(job, plan)
            job.columns = plan.columns
            job.billed = 0
        job.state, job.started, job.ended = "DONE", job.created, self._clock()
        return job

    def insert(self, project: str, job_id: str, configuration: Mapping[str, Any]) -> Job:
        """Start a job. Raises LocalError(duplicate) for an id that is taken."""
        self._expire()
        job = self._new(project, job_id or f"job_{uuid.uuid4().hex}", configuration)
        key = (project, job.id)
        with self._lock:
            if key in self._jobs:
                raise already_exists(f"Job {project}:US.{job.id}")
            self._jobs[key] = job
            ended = [k for k, other in self._jobs.items() if other.state == "DONE"]
            for old in ended[: max(0, len(self._jobs) - _KEPT_JOBS)]:
                del self._jobs[old]
        if job.timeout is not None:
            timer = threading.Timer(
                job.timeout, self.cancel, [job, f"Job timed out after {job.timeout:g}s"]
            )
            timer.daemon = True
            timer.start()
            job.done.add_done_callback(lambda _: timer.cancel())
        self._pool.submit(self._run, job)
        return job

    def cancel(self, job: Job, why: str = "User requested cancellation") -> None:
        """Ask a job to stop; it ends soon, as cancelled or, if it was quicker, as it did."""
        job.cancelled = job.cancelled or why
        threading.Thread(target=_interrupt, args=(job,), daemon=True).start()

    # --------------------------------------------------------------------------- running

    def _new(self, project: str, job_id: str, configuration: Mapping[str, Any]) -> Job:
        """A job of a checked configuration. Raises LocalError for what can't run here."""
        kinds = [kind for kind in ("load", "copy", "extract") if kind in configuration]
        if kinds:
            raise unsupported(f"{kinds[0]} jobs")
        query = configuration.get("query")
        if not isinstance(query, Mapping) or not str(query.get("query") or "").strip():
            raise LocalError("invalid", "Required parameter is missing: query")
        if str(query.get("useLegacySql", True)).lower() != "false":
            raise unsupported("legacy SQL; set useLegacySql to false")
        labels = dict(configuration.get("labels") or {})
        timeout = configuration.get("jobTimeoutMs")
        return Job(
            project=project,
            id=job_id,
            query=str(query["query"]),
            configuration=dict(query),
            created=self._clock(),
            labels=labels,
            parameters=parameters.read(query),
            timeout=None if timeout is None else int(timeout) / 1000,
        )

    def _run(self, job: Job) -> None:
        """In a thread of its own; the outcome is in the job."""
        job.state, job.started = "RUNNING", self._clock()
        try:
            with self.warehouse.cursor() as cursor:
                job.cursor = cursor
                self._statements(job, cursor)
        except LocalError as error:
            job.error = _stopped(job) if error.reason == "stopped" else error
        except Exception as error:  # noqa: BLE001 - a fault of ours must still end the job
            _log.exception("A job of the local BigQuery failed")
            job.error = LocalError("internalError", f"The local BigQuery failed: {error!r}")
        finally:
            job.cursor = None
            job.ended = self._clock()
            job.state = "DONE"
            job.done.set_result(None)

    def _statements(self, job: Job, cursor: Any) -> None:
        """All statements of the job, one after the other."""
        statements = sql.parse(job.query)
        job.kind = sql.script_type(statements)
        defaults = _defaults(job.project, job.configuration)
        for statement in statements:
            if job.cancelled:
                raise _stopped(job)
            bound = parameters.bind(statement, job.parameters, job.query)
            plan = execute.prepare(self.warehouse, bound, defaults, job.query)
            self._note(job, plan)
            self._guard(job)
            if plan.kind == "SELECT":
                self._select(job, plan, cursor)
                continue
            changed = execute.run(self.warehouse, plan, cursor)
            job.target = plan.target
            if plan.kind in ("INSERT", "UPDATE", "DELETE", "MERGE"):
                job.changed_rows = changed

    def _note(self, job: Job, plan: Plan) -> None:
        """Add what a statement scans to the job's account."""
        job.nbytes += plan.nbytes
        job.reads = tuple(dict.fromkeys((*job.reads, *plan.reads)))
        if job.reads:
            scanned = -(-job.nbytes // _MEGABYTE) * _MEGABYTE
            job.billed = max(scanned, _LEAST_BILLED * len(job.reads))

    def _guard(self, job: Job) -> None:
        """Raises LocalError when the job would cost more than it may."""
        limit = job.configuration.get("maximumBytesBilled")
        if limit is not None and 0 < int(limit) < job.billed:
            billed, job.billed = job.billed, 0
            raise LocalError(
                "bytesBilledLimitExceeded",
                f"Query exceeded limit for bytes billed: {int(limit)}. {billed} or higher "
                "required.",
            )

    def _select(self, job: Job, plan: Plan, cursor: Any) -> None:
        """Keep a query's rows where the job says."""
        if plan.provided is not None:
            provided = self.warehouse.provided(plan.provided)
            job.result, job.columns = plan.provided, plan.columns
            job.rows = provided.rows if provided else 0
            return
        asked = job.configuration.get("destinationTable")
        if asked:
            target = TableName(
                str(asked.get("projectId") or job.project), asked["datasetId"], asked["tableId"]
            )
            self.warehouse.require_dataset(target.project, target.dataset)
            disposition = job.configuration.get("writeDisposition") or "WRITE_EMPTY"
        else:
            target = _anonymous(job)
            self.warehouse.create_dataset(target.project, target.dataset, exists_ok=True)
            disposition = "WRITE_TRUNCATE"
        execute.store(self.warehouse, plan, target, cursor, disposition)
        job.result = target
        job.columns = self.warehouse.columns(target)
        job.rows = self.warehouse.rows(target)

    def _expire(self) -> None:
        """Drop the anonymous tables whose time is over."""
        over = self._clock() - self._result_seconds
        for job in self.all():
            if job.ended and job.ended < over and job.result and job.result.dataset[0] == "_":
                try:
                    self.warehouse.drop_table(job.result)
                except LocalError:
                    continue  # dropped before


def _stopped(job: Job) -> LocalError:
    return LocalError("stopped", f"Job execution was cancelled: {job.cancelled}")


def _interrupt(job: Job) -> None:
    """Stop the job's statement; again, as it may be between two of them."""
    while not wait([job.done], timeout=_INTERRUPT_SECONDS).done:
        cursor = job.cursor
        if cursor is not None:
            interrupt(cursor)


def _anonymous(job: Job) -> TableName:
    """The hidden table of a job's result, in the project's hidden dataset."""
    owner = hashlib.sha1(job.project.encode(), usedforsecurity=False).hexdigest()
    result = hashlib.sha256(f"{job.project}:{job.id}".encode()).hexdigest()
    return TableName(job.project, f"_{owner}", f"anon{result}")


def _defaults(project: str, query: Mapping[str, Any]) -> Defaults:
    default = query.get("defaultDataset")
    if not default:
        return Defaults(project=project)
    owner = str(default.get("projectId") or project)
    return Defaults(project=project, dataset=(owner, str(default["datasetId"])))
