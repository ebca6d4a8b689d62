"""SIGKILL at arbitrary moments: the next process goes on, and no row is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from local_system import KEY, Starter

ROWS = 30_000
WINDOW = {"RETL_CONCURRENCY": "2", "RETL_BUFFER_BYTES": "1MB", "RETL_READ_STREAMS": "2"}


@pytest.mark.slow
async def test_kills_lose_nothing_and_repeat_only_what_was_in_flight(system: Starter) -> None:
    root = Path(__file__).parents[2]
    environment = os.environ | WINDOW | {"PYTHONPATH": str(root)}
    async with system(rows=ROWS, latency=0.05) as one:
        await one.run(
            "SELECT id AS userId FROM app.users LIMIT 0"
        )  # writes retl.yml, moves nothing
        config = (one.folder / "retl.yml").read_text(encoding="utf-8")
        everything = config.replace(
            "SELECT id AS userId FROM app.users LIMIT 0",
            "SELECT id AS userId, REPEAT('x', 500) AS name FROM app.users",
        )
        assert everything != config
        (one.folder / "retl.yml").write_text(everything, encoding="utf-8")
        assert KEY in everything

        codes = []
        for wait in (0, 1, 2, 5, None):
            before = (await one.stats())["requests"]
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "pipeline",
                "run",
                "users",
                cwd=one.folder,
                env=environment,
                stderr=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
            )
            while wait is not None and (await one.stats())["requests"] <= before + wait:
                await asyncio.sleep(0.01)
                if process.returncode is not None:
                    break
            if wait is not None and process.returncode is None:
                process.send_signal(signal.SIGKILL)
            codes.append(await process.wait())
        stats = await one.stats()

    assert codes[-1] == 0
    assert codes.count(-signal.SIGKILL) >= 3
    arrived = one.received()
    assert {call["userId"] for call in arrived} == {str(row) for row in range(1, ROWS + 1)}
    assert stats["unique_message_ids"] == ROWS
    # At most a buffer full is sent again after each kill: what was in flight or not committed.
    assert len(arrived) - ROWS <= 4 * 20_000
