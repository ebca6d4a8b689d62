"""The event loop that verbs run on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from pipeline.cli.loop import run_async


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_work_runs_on_uvloop_and_the_collector_does_not_look_at_every_wave_of_requests() -> None:
    async def work() -> tuple[str, int]:
        return type(asyncio.get_running_loop()).__module__, gc.get_threshold()[0]

    loop, young = run_async(work())
    assert loop.startswith("uvloop")
    assert young > 10_000
    assert gc.isenabled()
