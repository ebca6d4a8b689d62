"""Real `retl run` processes under their lives: started, struck, and ended as they may.

Each writes a log of its own. Judges only what a process may end with.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chaos.plan import Life

ROOT = Path(__file__).parents[3]
COMPLETE, AGAIN = 0, 75

BOUND = 180.0
"""Seconds within which every process has to end, whatever was done to it: liveness."""

# Of what child.py does, what counts as a fault by itself.
_INSIDE = {"clock", "disk"}
_SIGNALS: Mapping[str, tuple[signal.Signals, ...]] = {
    "kill": (signal.SIGKILL,),
    "term": (signal.SIGTERM,),
    "term twice": (signal.SIGTERM, signal.SIGTERM),
    "pause": (signal.SIGSTOP,),
}


class Unexpected(Exception):
    """A process did not end as it may."""


@dataclass(eq=False, kw_only=True)
class Process:
    """One that was started. struck: its life's ending was done to it.

    also: exit codes that it may end with beside those of its life.
    """

    life: Life
    log: Path
    handle: asyncio.subprocess.Process
    counts: Counter[str]
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    also: set[int] = field(default_factory=set)

    @property
    def alive(self) -> bool:
        """Whether it has not ended, paused or not."""
        return self.handle.returncode is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.alive:
            self.handle.send_signal(number)

    def strike(self) -> None:
        """Do to it what its life's ending says."""
        if self.alive:
            for number in _SIGNALS.get(self.life.ending, ()):
                self.send(number)
            self.counts[self.life.ending] += 1
            self.struck.set()

    async def end(self) -> int:
        """Wait for its exit code. Raises Unexpected for none in time, and for a strange one."""
        try:
            code = await asyncio.wait_for(self.handle.wait(), BOUND)
        except TimeoutError:
            self.send(signal.SIGUSR1)  # it shows what its tasks wait for: see child.py
            await asyncio.sleep(1)
            self.send(signal.SIGABRT)  # and Python where its threads are
            await self.handle.wait()
            raise Unexpected(
                f"A process did not end within {BOUND:g} s, after {self.life}; {self.log.name}."
            ) from None
        self.counts[f"exit {code}"] += 1
        if code == -signal.SIGKILL and self.life.ending == "die":
            self.counts[f"die at {self._dies_at()}"] += 1
        if code not in self._may():
            raise Unexpected(f"A process ended with {code}, after {self.life}; {self.log.name}.")
        return code

    async def discard(self) -> None:
        """Let nothing be left of it."""
        self.send(signal.SIGKILL)
        await self.handle.wait()

    def _may(self) -> set[int]:
        life, may = self.life, {COMPLETE, AGAIN} | self.also
        if life.ending == "die" or (life.ending == "kill" and self.struck.is_set()):
            may.add(-signal.SIGKILL)
        if life.ending.startswith("term") and self._is_idle():
            # Python itself does not hear it yet, or not any more: nothing is under way.
            may.add(-signal.SIGTERM)
        return may

    def _is_idle(self) -> bool:
        """Whether its command has not begun yet, or has ended."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "--- begins" not in text or "--- ends" in text

    def _dies_at(self) -> object:
        die = self.life.child["die"]
        assert isinstance(die, Mapping)
        return die.get("of", "commit")


@dataclass(kw_only=True)
class Processes:
    """Starts them. folder: of the configuration; the logs go to `logs` in it.

    size: how many share a run. ear: the socket where the harness hears of their transactions.
    lease: seconds it lasts; None: as it is. counts: what was done, by kind.
    """

    folder: Path
    size: int = 1
    ear: Path | None = None
    lease: float | None = None
    sabotage: str | None = None
    counts: Counter[str] = field(default_factory=Counter)

    async def start(self, job: str, index: int, life: Life) -> Process:
        """A process of a Job, at an index."""
        given = dict(life.child)
        if self.lease is not None:
            given["lease"] = self.lease
        if self.sabotage is not None:
            given["sabotage"] = self.sabotage
        if self.ear is not None:
            given["ear"] = str(self.ear)
        self.counts["processes"] += 1
        for fault in life.child:
            self.counts[fault] += fault in _INSIDE
        environment = {
            **_clean(),
            **life.environment,
            **self._shard(job, index),
            "CHAOS": json.dumps(given),
        }
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        path = logs / f"{self.counts['processes']:03d}-{job}-{index}"
        with path.open("w", encoding="utf-8") as log:
            log.write(f"--- {job}, process {index}: {life}\n")
            log.flush()
            handle = await asyncio.create_subprocess_exec(
                sys.executable,
                str(Path(__file__).with_name("child.py")),
                "run",
                "moved",
                cwd=self.folder,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return Process(life=life, log=path, handle=handle, counts=self.counts)

    def _shard(self, job: str, index: int) -> dict[str, str]:
        if self.size == 1:
            return {}
        return {
            "RETL_SHARDS": str(self.size),
            "JOB_COMPLETION_INDEX": str(index),
            "RETL_JOB": job,
        }


def _clean() -> dict[str, str]:
    """The environment, without what would reach the command by chance."""
    strange = ("RETL_", "KUBERNETES_", "JOB_COMPLETION_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(strange)}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "PYTHONFAULTHANDLER": "1",
        "NO_COLOR": "1",
        "RETL_LOG_LEVEL": "debug",
    }
