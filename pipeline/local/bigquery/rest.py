"""The routes of BigQuery's REST API that the official clients use for queries and tables.

Handlers translate between HTTP and the rooms below; whatever may block runs in a thread. Every
refusal leaves as BigQuery's error body, an unknown route as a 501 that names it. Credentials are
not looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from pipeline.local.bigquery import resources
from pipeline.local.bigquery.errors import LocalError, unsupported
from pipeline.local.bigquery.jobs import Job, Jobs
from pipeline.local.bigquery.resources import Resource
from pipeline.local.bigquery.rows import to_rows
from pipeline.local.bigquery.sql import TableName
from pipeline.local.bigquery.types import from_rest, select
from pipeline.local.bigquery.warehouse import Warehouse

_log = logging.getLogger(__name__)

PREFIX = "/bigquery/v2"
_PAGE_ROWS = 10_000  # rows of a page when the client does not say
_WAIT_SECONDS = 10.0  # BigQuery's default timeoutMs
_LONGEST_WAIT = 200.0  # seconds; BigQuery's documented cap of timeoutMs

Handler = Callable[[web.Request], Awaitable[Resource]]


def add_routes(app: web.Application, warehouse: Warehouse, jobs: Jobs | None = None) -> None:
    """Let `app` answer as BigQuery over the warehouse; jobs end with the app."""
    api = _Api(warehouse, jobs or Jobs(warehouse))

    async def lifetime(_: web.Application) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(api.jobs.close)

    app.cleanup_ctx.append(lifetime)
    project = PREFIX + "/projects/{project}"
    dataset = project + "/datasets/{dataset}"
    table = dataset + "/tables/{table}"
    routes: tuple[tuple[str, str, Handler], ...] = (
        ("POST", project + "/jobs", api.insert_job),
        ("GET", project + "/jobs", api.list_jobs),
        ("GET", project + "/jobs/{job}", api.get_job),
        ("POST", project + "/jobs/{job}/cancel", api.cancel_job),
        ("POST", project + "/queries", api.query),
        ("GET", project + "/queries/{job}", api.query_results),
        ("POST", project + "/datasets", api.insert_dataset),
        ("GET", project + "/datasets", api.list_datasets),
        ("GET", dataset, api.get_dataset),
        ("DELETE", dataset, api.delete_dataset),
        ("POST", dataset + "/tables", api.insert_table),
        ("GET", dataset + "/tables", api.list_tables),
        ("GET", table, api.get_table),
        ("DELETE", table, api.delete_table),
        ("GET", table + "/data", api.list_rows),
    )
    for method, path, handler in routes:
        app.router.add_route(method, path, _answering(handler))
    app.router.add_route("*", "/{path:.*}", _answering(_unknown))


def _answering(handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler whose answers and refusals are JSON in BigQuery's shape."""

    async def answer(request: web.Request) -> web.Response:
        try:
            body = await handler(request)
        except LocalError as error:
            return web.json_response(error.body(), status=error.http)
        except (KeyError, TypeError, ValueError) as error:
            refusal = LocalError("invalid", f"The request is malformed: {error!r}")
            return web.json_response(refusal.body(), status=refusal.http)
        except Exception as error:  # noqa: BLE001 - our faults are answered in BigQuery's shape too
            _log.exception("The local BigQuery failed on %s %s", request.method, request.path)
            failure = LocalError("internalError", f"The local BigQuery failed: {error!r}")
            return web.json_response(failure.body(), status=failure.http)
        return web.json_response(body) if body else web.Response(status=204)

    return answer


async def _unknown(request: web.Request) -> Resource:
    raise unsupported(f"{request.method} {request.path}")


class _Api:
    """The handlers."""

    def __init__(self, warehouse: Warehouse, jobs: Jobs) -> None:
        self.warehouse = warehouse
        self.jobs = jobs

    # --------------------------------------------------------------------------- jobs

    async def insert_job(self, request: web.Request) -> Resource:
        body = await _body(request)
        project = request.match_info["project"]
        configuration = body.get("configuration") or {}
        if configuration.get("dryRun"):
            job = await asyncio.to_thread(self.jobs.dry_run, project, configuration)
            return resources.job_resource(job, dry_run=True)
        job_id = str((body.get("jobReference") or {}).get("jobId") or "")
        job = await asyncio.to_thread(self.jobs.insert, project, job_id, configuration)
        return resources.job_resource(job)

    async def list_jobs(self, request: web.Request) -> Resource:
        states = {state.upper() for state in request.query.getall("stateFilter", [])}
        jobs = [
            resources.job_resource(job) | {"state": job.state}
            for job in self.jobs.all(request.match_info["project"])
            if not states or job.state in states
        ]
        limit = int(request.query.get("maxResults", len(jobs)))
        return {"kind": "bigquery#jobList", "jobs": jobs[:limit]}

    async def get_job(self, request: web.Request) -> Resource:
        return resources.job_resource(self._job(request))

    async def cancel_job(self, request: web.Request) -> Resource:
        job = self._job(request)
        await asyncio.to_thread(self.jobs.cancel, job)
        return {"kind": "bigquery#jobCancelResponse", "job": resources.job_resource(job)}

    async def query(self, request: web.Request) -> Resource:
        body = await _body(request)
        project = request.match_info["project"]
        if str(body.get("queryResultsFormat", "")).upper() == "ARROW":
            raise unsupported("query results in Arrow over REST")
        configuration = {
            "query": {
                key: body[key]
                for key in (
                    "query",
                    "useLegacySql",
                    "defaultDataset",
                    "maximumBytesBilled",
                    "queryParameters",
                    "parameterMode",
                    "useQueryCache",
                )
                if key in body
            },
            "labels": body.get("labels") or {},
        }
        kind = "bigquery#queryResponse"
        if body.get("dryRun"):
            job = await asyncio.to_thread(self.jobs.dry_run, project, configuration)
            schema = {"schema": resources.schema(job.columns), "totalRows": "0"}
            return resources.query_results(job, kind) | schema
        job = await asyncio.to_thread(self.jobs.insert, project, "", configuration)
        await _wait(job, float(body.get("timeoutMs") or _WAIT_SECONDS * 1000) / 1000)
        options = body.get("formatOptions") or {}
        return await self._results(
            job,
            kind,
            rows=body.get("maxResults"),
            first=0,
            int64=bool(options.get("useInt64Timestamp")),
        )

    async def query_results(self, request: web.Request) -> Resource:
        job = self._job(request)
        asked = request.query
        await _wait(job, float(asked.get("timeoutMs", _WAIT_SECONDS * 1000)) / 1000)
        return await self._results(
            job,
            "bigquery#getQueryResultsResponse",
            rows=asked.get("maxResults"),
            first=_first(asked),
            int64=_flag(asked, "formatOptions.useInt64Timestamp"),
        )

    def _job(self, request: web.Request) -> Job:
        return self.jobs.get(request.match_info["project"], request.match_info["job"])

    async def _results(
        self, job: Job, kind: str, *, rows: object, first: int, int64: bool
    ) -> Resource:
        """The state of a job and, when it is done, a page of its rows. Raises the job's error."""
        if job.state == "DONE" and job.error is not None:
            raise job.error
        answer = resources.query_results(job, kind)
        if job.state != "DONE" or job.result is None:
            return answer
        name, total = job.result, job.rows or 0
        return answer | await self._page(name, total, rows=rows, first=first, int64=int64)

    async def _page(
        self, name: TableName, total: int, *, rows: object, first: int, int64: bool
    ) -> Resource:
        """The rows of a page, and the token of the next if there is one."""
        asked = _PAGE_ROWS if rows is None else int(str(rows))
        count = max(0, min(asked, _PAGE_ROWS, total - first))
        page: Resource = {}
        if count:
            page["rows"] = await asyncio.to_thread(self._encoded, name, first, count, int64)
        if first + count < total:
            page["pageToken"] = str(first + count)
        return page

    def _encoded(self, name: TableName, first: int, count: int, int64: bool) -> list[Resource]:  # noqa: FBT001 - private
        table = self.warehouse.page(name, first, count)
        return list(to_rows(table, self.warehouse.columns(name), int64_timestamps=int64))

    # --------------------------------------------------------------------------- datasets

    async def insert_dataset(self, request: web.Request) -> Resource:
        body = await _body(request)
        project = request.match_info["project"]
        dataset = str(body["datasetReference"]["datasetId"])
        await asyncio.to_thread(self.warehouse.create_dataset, project, dataset)
        return resources.dataset_resource(project, dataset)

    async def list_datasets(self, request: web.Request) -> Resource:
        project = request.match_info["project"]
        found = await asyncio.to_thread(self.warehouse.datasets, project)
        items = [resources.dataset_resource(project, dataset) for dataset in found]
        return {"kind": "bigquery#datasetList", "datasets": items}

    async def get_dataset(self, request: web.Request) -> Resource:
        project, dataset = _dataset(request)
        await asyncio.to_thread(self.warehouse.require_dataset, project, dataset)
        return resources.dataset_resource(project, dataset)

    async def delete_dataset(self, request: web.Request) -> Resource:
        project, dataset = _dataset(request)
        cascade = _flag(request.query, "deleteContents")
        await asyncio.to_thread(self.warehouse.drop_dataset, project, dataset, cascade=cascade)
        return {}

    # --------------------------------------------------------------------------- tables

    async def insert_table(self, request: web.Request) -> Resource:
        body = await _body(request)
        name = TableName(*_dataset(request), str(body["tableReference"]["tableId"]))
        if "view" in body or "externalDataConfiguration" in body:
            raise unsupported("views and external tables in tables.insert; use CREATE VIEW")
        columns = [from_rest(field) for field in (body.get("schema") or {}).get("fields") or ()]
        if not columns:
            raise LocalError("invalid", "A table needs a schema with at least one field")
        await asyncio.to_thread(self.warehouse.create_table, name, columns)
        return resources.table_resource(await asyncio.to_thread(self.warehouse.info, name))

    async def list_tables(self, request: web.Request) -> Resource:
        project, dataset = _dataset(request)
        await asyncio.to_thread(self.warehouse.require_dataset, project, dataset)
        found = await asyncio.to_thread(self.warehouse.tables, project, dataset)
        items = [resources.table_item(name) for name in found]
        return {"kind": "bigquery#tableList", "tables": items, "totalItems": len(items)}

    async def get_table(self, request: web.Request) -> Resource:
        info = await asyncio.to_thread(self.warehouse.info, _table(request))
        return resources.table_resource(info)

    async def delete_table(self, request: web.Request) -> Resource:
        await asyncio.to_thread(self.warehouse.drop_table, _table(request))
        return {}

    async def list_rows(self, request: web.Request) -> Resource:
        name, asked = _table(request), request.query
        info = await asyncio.to_thread(self.warehouse.info, name)
        fields = [field for field in asked.get("selectedFields", "").split(",") if field]
        if fields and select(info.columns, fields) != info.columns:
            raise unsupported("selectedFields in tabledata.list")
        page = await self._page(
            name,
            info.rows,
            rows=asked.get("maxResults"),
            first=_first(asked),
            int64=_flag(asked, "formatOptions.useInt64Timestamp"),
        )
        return {"kind": "bigquery#tableDataList", "totalRows": str(info.rows), **page}


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read() or b"{}")
    except ValueError as error:
        raise LocalError("parseError", "The request's body is not JSON", 400) from error
    if not isinstance(body, dict):
        raise LocalError("parseError", "The request's body is not a JSON object", 400)
    return body


async def _wait(job: Job, seconds: float) -> None:
    """Until the job is done, or the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(min(max(seconds, 0), _LONGEST_WAIT)):
            await asyncio.shield(asyncio.wrap_future(job.done))


def _dataset(request: web.Request) -> tuple[str, str]:
    return request.match_info["project"], request.match_info["dataset"]


def _table(request: web.Request) -> TableName:
    return TableName(*_dataset(request), request.match_info["table"])


def _first(asked: Mapping[str, str]) -> int:
    """The number of a page's first row."""
    return int(asked.get("pageToken") or asked.get("startIndex") or 0)


def _flag(asked: Mapping[str, str], name: str) -> bool:
    return str(asked.get(name, "")).lower() == "true"
