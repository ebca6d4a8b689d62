"""Faults of a fault plan, done to REST calls: a middleware in front of the routes.

The names that a plan's `on` may give: `insert_job`, `dry_run` (an insert that only checks its
query), `get_job`. All other routes meet no faults. A refusal without a body of its own is
BigQuery's for a missing `bigquery.jobs.create`, or an error of the backend.
"""

from __future__ import annotations

import asyncio
import json
import re

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from pipeline.local.bigquery.errors import LocalError
from pipeline.local.faults import Fault, FaultPlan

_JOBS = re.compile(r"/bigquery/v2/projects/([^/]+)/jobs(/[^/]+)?")
_FORBIDDEN = 403
_REASONS = {400: "invalid", 401: "authError", 404: "notFound", 429: "rateLimitExceeded"}


def striking(plan: FaultPlan) -> Middleware:
    """The middleware of a plan."""

    @web.middleware
    async def strike(request: web.Request, handler: Handler) -> web.StreamResponse:
        match = _JOBS.fullmatch(request.path)
        fault = plan.next(await _name(request, match)) if match else None
        if match is None or fault is None:
            return await handler(request)
        if fault.delay:
            await asyncio.sleep(fault.delay)
        answer = await handler(request) if fault.taken else None
        if fault.hang:
            await asyncio.Event().wait()  # cancelled when the client or the server goes
        if fault.reset and request.transport is not None:
            request.transport.abort()
            return web.Response()  # which goes nowhere
        status = fault.status or (503 if fault.error else None)
        if status is None:
            return answer or await handler(request)
        return _refusal(status, fault, match[1])

    return strike


async def _name(request: web.Request, match: re.Match[str]) -> str:
    if request.method != "POST":
        return "get_job"
    if match[2]:  # jobs/ID/cancel has one part more and is not matched
        return "other"
    body = await request.read()  # kept by aiohttp for the handler
    try:
        return "dry_run" if json.loads(body)["configuration"].get("dryRun") else "insert_job"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "insert_job"


def _refusal(status: int, fault: Fault, project: str) -> web.Response:
    headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
    if fault.body is not None:
        return web.Response(
            status=status, text=fault.body, headers=headers, content_type="application/json"
        )
    if status == _FORBIDDEN:
        error = LocalError(
            "accessDenied",
            f"Access Denied: Project {project}: User does not have bigquery.jobs.create "
            f"permission in project {project}.",
        )
    else:
        reason = _REASONS.get(status, "backendError")
        error = LocalError(reason, fault.message or f"{status} by the fault plan", status)
    return web.json_response(error.body(), status=status, headers=headers)
