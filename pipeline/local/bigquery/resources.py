"""Jobs, tables and datasets as REST resources: plain dicts for JSON.

Source: the BigQuery v2 REST reference. What the local BigQuery does not know is left out. Knows no
HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.local.bigquery.jobs import Job
from pipeline.local.bigquery.sql import TableName
from pipeline.local.bigquery.tables import TableInfo
from pipeline.local.bigquery.types import Column, to_rest

LOCATION = "US"
Resource = dict[str, Any]


def table_reference(name: TableName) -> Resource:
    """A TableReference."""
    return {"projectId": name.project, "datasetId": name.dataset, "tableId": name.table}


def schema(columns: Sequence[Column]) -> Resource:
    """A TableSchema."""
    return {"fields": [to_rest(column) for column in columns]}


def job_reference(job: Job) -> Resource:
    """A JobReference; a dry run has no job id."""
    named = {"jobId": job.id} if job.id else {}
    return {"projectId": job.project, **named, "location": LOCATION}


def job_resource(job: Job, *, dry_run: bool = False) -> Resource:
    """A Job."""
    query = {key: value for key, value in job.configuration.items() if key != "destinationTable"}
    query |= {"query": job.query, "useLegacySql": False}
    destination = job.result or job.target
    if destination is not None:
        query["destinationTable"] = table_reference(destination)
    elif "destinationTable" in job.configuration:
        query["destinationTable"] = job.configuration["destinationTable"]
    query.setdefault("priority", "INTERACTIVE")
    query.setdefault("writeDisposition", "WRITE_TRUNCATE")
    configuration: Resource = {"jobType": "QUERY", "query": query}
    if job.timeout is not None:
        configuration["jobTimeoutMs"] = str(round(job.timeout * 1000))
    if job.labels:
        configuration["labels"] = dict(job.labels)
    if dry_run:
        configuration["dryRun"] = True
    status: Resource = {"state": job.state}
    if job.error is not None:
        status |= {"errorResult": job.error.proto(), "errors": [job.error.proto()]}
    return {
        "kind": "bigquery#job",
        "etag": f"{job.id}-{job.state}",
        "id": f"{job.project}:{LOCATION}.{job.id}",
        "user_email": "local@localhost",
        "configuration": configuration,
        "jobReference": job_reference(job),
        "statistics": _statistics(job, dry_run=dry_run),
        "status": status,
    }


def _statistics(job: Job, *, dry_run: bool) -> Resource:
    started = job.started if job.started is not None else job.created
    statistics: Resource = {"creationTime": _milliseconds(job.created)}
    if job.state != "PENDING":
        statistics["startTime"] = _milliseconds(started)
    if job.state != "DONE":
        if job.nbytes:
            statistics["query"] = {"estimatedBytesProcessed": str(job.nbytes)}
        return statistics
    ended = job.ended if job.ended is not None else started
    slot = "0" if dry_run else str(max(1, round((ended - started) * 1000)))
    query: Resource = {
        "statementType": job.kind,
        "totalBytesProcessed": str(job.nbytes),
        "totalBytesBilled": str(job.billed),
        "totalSlotMs": slot,
        "cacheHit": False,
        "referencedTables": [table_reference(name) for name in job.reads],
    }
    if dry_run:
        query["totalBytesProcessedAccuracy"] = "PRECISE"
        if job.columns:
            query["schema"] = schema(job.columns)
    if job.changed_rows is not None:
        query["numDmlAffectedRows"] = str(job.changed_rows)
    if job.kind.startswith(("CREATE_", "DROP_")) and job.target is not None:
        query["ddlOperationPerformed"] = job.kind.partition("_")[0]
        query["ddlTargetTable"] = table_reference(job.target)
    return statistics | {
        "endTime": _milliseconds(ended),
        "totalBytesProcessed": str(job.nbytes),
        "totalSlotMs": slot,
        "query": query,
    }


def query_results(job: Job, kind: str) -> Resource:
    """What jobs.query and jobs.getQueryResults have in common, without rows."""
    answer: Resource = {
        "kind": kind,
        "jobReference": job_reference(job),
        "jobComplete": job.state == "DONE",
    }
    if job.state != "DONE":
        return answer
    answer |= {"totalBytesProcessed": str(job.nbytes), "cacheHit": False}
    if job.changed_rows is not None:
        answer["numDmlAffectedRows"] = str(job.changed_rows)
    if job.result is not None:
        answer |= {"schema": schema(job.columns), "totalRows": str(job.rows or 0)}
    return answer


def table_resource(info: TableInfo) -> Resource:
    """A Table."""
    name = info.name
    created = _milliseconds(info.created)
    return {
        "kind": "bigquery#table",
        "etag": f"{name}-{info.rows}-{created}",
        "id": f"{name.project}:{name.dataset}.{name.table}",
        "tableReference": table_reference(name),
        "type": info.kind,
        "schema": schema(info.columns),
        "numRows": str(info.rows),
        "numBytes": str(info.nbytes),
        "creationTime": created,
        "lastModifiedTime": created,
        "location": LOCATION,
    }


def table_item(name: TableName) -> Resource:
    """A table in tables.list."""
    return {
        "kind": "bigquery#table",
        "id": f"{name.project}:{name.dataset}.{name.table}",
        "tableReference": table_reference(name),
        "type": "TABLE",
    }


def dataset_resource(project: str, dataset: str) -> Resource:
    """A Dataset."""
    return {
        "kind": "bigquery#dataset",
        "etag": dataset,
        "id": f"{project}:{dataset}",
        "datasetReference": {"projectId": project, "datasetId": dataset},
        "location": LOCATION,
    }


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
