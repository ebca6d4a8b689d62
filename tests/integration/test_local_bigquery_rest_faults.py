"""Faults of a plan that meet REST calls of the local BigQuery."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from pipeline.local.bigquery.server import Address, serve
from pipeline.local.faults import FaultPlan

OWN = '{"error": {"code": 403, "message": "mine", "errors": []}}'


@asynccontextmanager
async def jobs(plan: str) -> AsyncIterator[Any]:
    """Posts a job, or asks for one: (status, body)."""
    stop = asyncio.Event()
    ready: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(
        serve(faults=FaultPlan.parse(plan), ready=ready.set_result, stop=stop)
    )
    url = f"{(await ready).rest}/bigquery/v2/projects/local/jobs"

    async def call(job: str = "", *, dry_run: bool = False, get: bool = False) -> Any:
        configuration = {"query": {"query": "SELECT 1", "useLegacySql": False}, "dryRun": dry_run}
        body = {"configuration": configuration, "jobReference": {"jobId": job}}
        async with aiohttp.ClientSession() as session:
            asked = session.get(f"{url}/{job}") if get else session.post(url, json=body)
            async with asked as answer:
                return answer.status, await answer.json(), answer.headers.get("Retry-After")

    try:
        yield call
    finally:
        stop.set()
        await server


async def test_a_dry_run_is_refused_and_a_job_is_not() -> None:
    async with jobs("- {on: dry_run, do: {status: 403}}") as call:
        status, body, _ = await call(dry_run=True)
        assert status == 403
        assert body["error"]["errors"][0]["reason"] == "accessDenied"
        assert "bigquery.jobs.create" in body["error"]["message"]
        assert (await call(dry_run=True))[0] == 200, "once, as the plan says"
        assert (await call("one"))[0] == 200


async def test_an_answer_may_be_lost_after_the_work() -> None:
    async with jobs("- {on: insert_job, do: {status: 503, retry_after: 2, taken: true}}") as call:
        status, body, retry_after = await call("one")
        assert (status, retry_after) == (503, "2")
        assert body["error"]["errors"][0]["reason"] == "backendError"
        assert (await call("one", get=True))[0] == 200, "the job is there"


async def test_a_refusal_without_the_work() -> None:
    async with jobs("- {on: insert_job, do: {status: 503}}") as call:
        assert (await call("one"))[0] == 503
        assert (await call("one", get=True))[0] == 404


async def test_a_body_of_its_own() -> None:
    plan = f"- {{on: get_job, do: {{status: 403, body: {json.dumps(OWN)}}}}}"
    async with jobs(plan) as call:
        assert (await call("one"))[0] == 200
        status, body, _ = await call("one", get=True)
        assert (status, body) == (403, json.loads(OWN))


async def test_a_connection_may_be_cut() -> None:
    async with jobs("- {on: insert_job, do: {reset: true}}") as call:
        with pytest.raises(aiohttp.ClientError):
            await call("one")
        assert (await call("one"))[0] == 200


async def test_a_mere_delay_changes_nothing() -> None:
    async with jobs("- {on: insert_job, do: {delay: 0.001}}") as call:
        assert (await call("one"))[0] == 200
