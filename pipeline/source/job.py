"""One query job: what BigQuery says of it while it runs, and of what it made. Asks for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.cloud import bigquery


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """A query that ran. table: `projects/p/datasets/d/tables/t`. started: Unix seconds.

    slot_ms: of work, over all slots. cache_hit: BigQuery had the result from a query before.
    """

    job_id: str
    location: str
    table: str
    started: int
    bytes_processed: int
    bytes_billed: int
    slot_ms: int
    cache_hit: bool


class Job:
    """A job, and whether it was there already."""

    def __init__(self, job: bigquery.QueryJob, *, found: bool) -> None:
        self.job, self.found = job, found
        self.id = f"{job.project}:{job.location}.{job.job_id}"
        self.query = str(job.query)

    @property
    def error_result(self) -> Mapping[str, str] | None:
        """Why it failed, in BigQuery's words; None while it has not."""
        result: Mapping[str, str] | None = self.job.error_result
        return result

    @property
    def seconds(self) -> float:
        """From its creation to its end, by BigQuery's clock."""
        created, ended = self.job.created, self.job.ended
        return float((ended - created).total_seconds()) if created and ended else 0.0

    def activity(self, passed: float) -> str:
        """What it is at, for people, from the statistics of the last poll. passed: seconds."""
        job = self.job
        doing = "query waiting for slots" if job.state == "PENDING" else "query running"
        parts = [f"{doing}, {passed:.0f} s"]
        if job.total_bytes_processed:
            parts.append(f"{_size(job.total_bytes_processed)} processed")
        elif job.estimated_bytes_processed:
            parts.append(f"{_size(job.estimated_bytes_processed)} to scan")
        if job.slot_millis:
            parts.append(f"{job.slot_millis / 1000:,.0f} slot seconds")
        return ", ".join(parts)

    def result(self) -> QueryResult:
        """What it made; of a job that is done and did not fail."""
        job, table = self.job, self.job.destination
        return QueryResult(
            job_id=self.id,
            location=job.location or "",
            table=f"projects/{table.project}/datasets/{table.dataset_id}/tables/{table.table_id}",
            started=int(job.started.timestamp()),
            bytes_processed=job.total_bytes_processed or 0,
            bytes_billed=job.total_bytes_billed or 0,
            slot_ms=job.slot_millis or 0,
            cache_hit=bool(job.cache_hit),
        )


def _size(nbytes: int) -> str:
    """Bytes for people, in decimal units."""
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB")):
        if nbytes >= 10**power:
            return f"{nbytes / 10**power:.1f} {unit}"
    return f"{nbytes / 1000:.1f} kB"
