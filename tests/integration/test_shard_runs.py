"""Three processes, one run: the command itself, on a real Postgres, against BigQuery's stand-in."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from local_system import CONFIG, KEY, Starter, System
from postgres import Postgres

from pipeline.config import load_config
from pipeline.model import Result
from pipeline.ports import Store
from pipeline.wiring import open_store

ROOT = Path(__file__).parents[2]
QUERY = "SELECT id AS userId, name FROM app.users"
ROWS = 6_000
PATIENCE = 90


@dataclass
class Job:
    """An Indexed Job of three, by hand."""

    system: System
    state: str
    name: str = "job-1"
    running: list[asyncio.subprocess.Process] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        clean = {
            key: text for key, text in os.environ.items() if not key.startswith(("RETL_", "JOB_"))
        }
        return clean | {"PYTHONPATH": str(ROOT), "RETL_STATE": self.state} | more

    async def start(self, index: int) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipeline", "run", "users", "--output", "json"),
            cwd=self.system.folder,
            env=self.environment(
                RETL_SHARDS="3",
                JOB_COMPLETION_INDEX=str(index),
                RETL_JOB=self.name,
                RETL_LOG_FORMAT="json",
            ),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.running.append(process)
        return process

    async def jobs(self) -> int:
        """Query jobs of the sync so far."""
        found = await asyncio.to_thread(lambda: list(self.system.client.list_jobs()))
        return sum("retl_sync" in (job.labels or {}) for job in found)


async def ended(process: asyncio.subprocess.Process) -> tuple[int, dict[str, Any], str]:
    """Exit code, report, log."""
    async with asyncio.timeout(PATIENCE):
        out, log = await process.communicate()
    assert process.returncode is not None
    return process.returncode, json.loads(out) if out else {}, log.decode()


@asynccontextmanager
async def three_of(system: Starter, postgres: Postgres, **options: Any) -> AsyncIterator[Job]:
    async with system(rows=ROWS, message_rows=50, **options) as one:
        text = CONFIG.format(
            rest=one.address.rest,
            storage=one.address.storage,
            customerio=one.customerio,
            query=json.dumps(QUERY),
            key=KEY,
            deadline="20s",
        )
        (one.folder / "retl.yml").write_text(text, encoding="utf-8")
        job = Job(one, postgres.fresh())
        try:
            yield job
        finally:
            for process in job.running:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


def committed(store: Store) -> bool:
    """Whether shard 0 has settled rows."""
    (record,) = store.runs() or [None]
    detail = None if record is None else store.run(record.id)
    return detail is not None and any(each.read for each in detail.shards[0].counts.values())


# Of what arrived only the end of the service makes sure that it is on disk.
def times(job: Job) -> Counter[str]:
    return Counter(row["userId"] for row in job.system.received())


@pytest.mark.slow
async def test_three_processes_deliver_one_run(system: Starter, postgres: Postgres) -> None:
    async with three_of(system, postgres) as job:
        processes = [await job.start(index) for index in range(3)]
        results = [await ended(process) for process in processes]

        assert [code for code, _, _ in results] == [0, 0, 0]
        assert await job.jobs() == 1
        reports = [report for _, report, _ in results]
        assert len({report["run"] for report in reports}) == 1
        assert [report["shard"]["index"] for report in reports] == [0, 1, 2]
        assert sum(report["destinations"]["cio"]["delivered"] for report in reports) == ROWS
        assert all(report["destinations"]["cio"]["delivered"] > 0 for report in reports)
        for index, (_, _, log) in enumerate(results):
            lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
            assert {line["shard"] for line in lines} == {f"{index} of 3"}

        config = load_config(job.system.folder / "retl.yml", {"RETL_STATE": job.state})
        with closing(open_store(config)) as store:
            (record,) = store.runs()
            assert (record.result, record.job, record.shards) == (Result.COMPLETE, "job-1", 3)
            assert record.counts["cio"].delivered == ROWS
            assert store.window("users").sequence == 2
            detail = store.run(record.id)
            assert detail is not None
            assert detail.reading is not None
            assert len(detail.reading.streams) >= 24
            assert len(detail.reports) == 3
    assert times(job) == Counter(str(row + 1) for row in range(ROWS))


@pytest.mark.slow
async def test_a_shard_that_is_killed_and_started_again(
    system: Starter, postgres: Postgres
) -> None:
    slow = "- {on: batch, times: always, do: {delay: 0.8}}"
    async with three_of(system, postgres, customerio_faults=slow) as job:
        victim, other, third = [await job.start(index) for index in range(3)]
        config = load_config(job.system.folder / "retl.yml", {"RETL_STATE": job.state})
        with closing(open_store(config)) as store:
            async with asyncio.timeout(PATIENCE):
                while not await asyncio.to_thread(committed, store):  # noqa: ASYNC110 - a process's
                    await asyncio.sleep(0.05)
            victim.send_signal(signal.SIGKILL)
            await victim.wait()
            again = await job.start(0)
            results = [await ended(process) for process in (again, other, third)]

            assert [code for code, _, _ in results] == [0, 0, 0]
            (record,) = store.runs()
            assert record.result is Result.COMPLETE
            assert record.counts["cio"].delivered == ROWS
            assert store.window("users").sequence == 2
        assert await job.jobs() == 1
        repeated = (await job.system.stats())["duplicates"]
    assert set(times(job)) == {str(row + 1) for row in range(ROWS)}
    # What was in flight, under the message ids that it had.
    assert times(job).total() - ROWS == repeated
