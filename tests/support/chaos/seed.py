"""One seed, from its plan to its verdict."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import traceback
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from chaos import plan as planning
from chaos.fleet import Fleet
from chaos.judge import Verdict, judge_arrivals, judge_letters, judge_queries, judge_state
from chaos.processes import Processes, Unexpected
from chaos.rows import SCHEMA, SYNC, Rows, insert
from chaos.services import KEY, Services, services
from chaos.state import state

from pipeline.config import load_config
from pipeline.wiring import open_store

_CONFIG = """
version: 1
sources:
  warehouse: {{type: bigquery, project: local, endpoint: "{rest}", storage_endpoint: "{storage}"}}
destinations: {destinations}
syncs:
  {sync}: {moved}
send: {{retry_deadline: 3s, timeout: 1s, connect_timeout: 1s}}
drain: 2s
state: {state}
spool: {spool}
"""


@dataclass(kw_only=True)
class Outcome:
    """What became of a seed. rows: issued. met: faults of the servers, by kind.

    counts: what was done to processes, and how they ended. seconds: it took.
    """

    seed: int
    rows: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    counts: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def kills(self) -> int:
        """Processes that ended by SIGKILL."""
        return self.counts["exit -9"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a seed is played on. fleet: processes that share a run; more than one take Postgres.

    root: the folder of the folders of the seeds. sabotage: a defect to put into the engine.
    """

    root: Path
    postgres: bool = False
    fleet: int = 1
    sabotage: str | None = None


def attempt(seed: int, setting: Setting) -> Outcome:
    """Play a seed in a folder of its own, which stays if it fails.

    Never raises: what fails is told with its seed.
    """
    folder = setting.root / str(seed)
    folder.mkdir()
    try:
        outcome = asyncio.run(_play(seed, folder, setting))
    except Exception:  # noqa: BLE001 - a fault of the harness itself
        outcome = Outcome(seed=seed)
        outcome.verdict.problems.append(traceback.format_exc())
    if not outcome.verdict.problems:
        shutil.rmtree(folder)
    return outcome


async def _play(seed: int, folder: Path, setting: Setting) -> Outcome:
    plan = planning.make(seed, fleet=setting.fleet, postgres=setting.postgres)
    outcome, started = Outcome(seed=seed), time.monotonic()
    async with state(folder, postgres=setting.postgres) as kept, services(plan, folder) as one:
        for statement in SCHEMA:
            await one.sql(statement)

        async def issue(count: int) -> None:
            first, outcome.rows = outcome.rows + 1, outcome.rows + count
            await one.sql(insert(range(first, outcome.rows + 1)))

        await issue(plan.rows)
        _write_config(plan, one, folder, kept.url)
        processes = Processes(
            folder=folder,
            size=setting.fleet,
            ear=one.ear if setting.fleet > 1 else None,
            lease=kept.lease,
            sabotage=setting.sabotage,
        )
        fleet = Fleet(services=one, processes=processes, issue=issue, restart=kept.restart)
        complete = 0
        try:
            for number, job in enumerate([*plan.jobs, planning.Job()], 1):
                if number > len(plan.jobs):  # without faults, and with nobody beside it
                    await fleet.over()
                complete += await fleet.job(f"job-{number}", job)
        except* Unexpected as group:
            outcome.verdict.problems += [str(error) for error in group.exceptions]
        outcome.counts, outcome.met = processes.counts, one.met()
        if not outcome.verdict.problems:
            await _judge(outcome, plan, one, folder, jobs=complete)
    outcome.seconds = time.monotonic() - started
    return outcome


async def _judge(
    outcome: Outcome, plan: planning.Plan, one: Services, folder: Path, *, jobs: int
) -> None:
    rows, issued, verdict = Rows(call=plan.call), range(1, outcome.rows + 1), outcome.verdict
    with closing(open_store(load_config(folder / "retl.yml", {}))) as store:
        runs = store.runs(SYNC, 10**6)
        windows = list({run.window for run in runs})
        letters = store.dead_letters(limit=10**6)
        judge_state(verdict, store, sinks=one.sinks, jobs=jobs)
    judge_queries(verdict, await one.query_jobs(), runs)
    for sink, (_, record) in one.sinks.items():
        if dropped := await one.dropped(sink):
            verdict.problems.append(f"{sink}: Customer.io dropped calls in silence: {dropped}")
        judge_arrivals(
            verdict,
            sink,
            record.read_bytes().splitlines(),
            rows=rows,
            issued=issued,
            windows=windows,
            ordered=plan.ordered,
        )
        own = [letter for letter in letters if letter.destination == sink]
        judge_letters(verdict, sink, own, rows=rows, issued=issued, windows=windows)
    for log in sorted((folder / "logs").iterdir()):
        if "Traceback" in log.read_text(encoding="utf-8", errors="replace"):
            verdict.problems.append(f"A process showed a traceback: {log.name}.")


def _write_config(plan: planning.Plan, one: Services, folder: Path, url: str) -> None:
    destinations = {
        name: {"type": "customerio", "api_key": KEY, "endpoint": f"{url}/v1"}
        for name, (url, _) in one.sinks.items()
    }
    moved = {
        "source": "warehouse",
        "call": plan.call,
        "destinations": [*one.sinks],
        "ordering": "per_user" if plan.ordered else "none",
        # A row is issued a moment before others can see it.
        "lookback": "2s",
        "query": Rows(call=plan.call).query(ordered=plan.ordered),
    }
    spool = {"dir": str(folder / "spool"), "when": "always"} if plan.spooled else {}
    text = _CONFIG.format(
        rest=one.address.rest,
        storage=f"http://{one.address.storage}",
        destinations=json.dumps(destinations),
        sync=SYNC,
        moved=json.dumps(moved),
        state=json.dumps(url),
        spool=json.dumps(spool),
    )
    (folder / "retl.yml").write_text(text, encoding="utf-8")
