"""`retl` as a process whose surroundings are at fault: its clock, its disk, its commits.

Run as a script with the command's arguments. CHAOS holds what is to go wrong, as JSON:
clock {offset, after, jump}: seconds that `time.time` is wrong by, and then jumps by.
disk {bytes} or {pages}: no file may grow beyond so many bytes; the state's file by so many pages.
die {commit, before, of}: SIGKILL around the so-manyth commit of the state; of "attach" or
"finish": of those in which a shard starts the run, or ends.
lease: seconds that a lease lasts. commit_every: seconds between two commits.
patience: seconds that a process waits for a shard that another one has.
ear: a socket that hears of "attach" and "finish", and answers, before they are committed.
sabotage: a defect of the engine's, to see that the harness finds it.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sabotage import SABOTAGES  # type: ignore[import-not-found]  # beside this script


def main() -> None:
    sys.path.pop(0)  # this folder, whose modules are no one's business in here
    from pipeline.cli.early import end_on_signals

    end_on_signals()
    _say("--- begins")
    signal.signal(signal.SIGUSR1, lambda *_: _show_tasks())
    given = json.loads(os.environ.pop("CHAOS"))
    if "clock" in given:
        _shift_clock(**given["clock"])
    if "bytes" in given.get("disk", {}):
        resource.setrlimit(resource.RLIMIT_FSIZE, (given["disk"]["bytes"],) * 2)
    if "pages" in given.get("disk", {}):
        _limit_pages(given["disk"]["pages"])
    if "die" in given or "ear" in given:
        _note_shards(given.get("ear"))
    if "die" in given:
        _die(**given["die"])
    if "lease" in given:
        _lease(given["lease"])
    _set("pipeline.source.patience._FIRST_WAIT", 0.02)
    _set("pipeline.source.read._IDLE", 1.0)
    _set("pipeline.run.engine._COMMIT_EVERY", given.get("commit_every", 1.0))
    _set("pipeline.run.shards._EVERY", 0.2)
    if "patience" in given:
        _set("pipeline.run.shards._PATIENCE", given["patience"])
    if "sabotage" in given:
        SABOTAGES[given["sabotage"]]()
    from pipeline.__main__ import main as retl

    try:
        retl()
    finally:
        _say("--- ends")


def _say(what: str) -> None:
    """To the log, where the harness looks for it."""
    os.write(2, f"{what}\n".encode())


def _show_tasks() -> None:
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)


def _shift_clock(offset: float, after: float, jump: float) -> None:
    true, started = time.time, time.monotonic()

    def now() -> float:
        return true() + offset + (jump if time.monotonic() > started + after else 0.0)

    time.time = now
    # gRPC adds its timeouts to `time.time` and compares with a clock of its own, in C.
    from grpc import _channel
    from grpc.aio import _utils

    for module in (_channel, _utils):
        assert module.time is time
        module.time = SimpleNamespace(time=true)


def _limit_pages(pages: int) -> None:
    import sqlalchemy as sa

    def connected(connection: Any, _entry: object) -> None:
        cursor = connection.cursor()
        (now,) = cursor.execute("PRAGMA page_count").fetchone()
        cursor.execute(f"PRAGMA max_page_count = {now + pages}")
        cursor.close()

    sa.event.listen(sa.Engine, "connect", connected)


_under_way = threading.local()
"""what: the transaction of this thread, "attach" or "finish"; unset for others."""


def _note_shards(ear: str | None) -> None:
    """Know which commits start a shared run or end a shard, and tell the harness before them."""
    from pipeline.checkpoint import shards

    def noted(name: str, does: Callable[..., Any]) -> Callable[..., Any]:
        def doing(*args: Any, **options: Any) -> Any:
            made = does(*args, **options)
            _under_way.what = name
            if ear is not None:
                with socket.socket(socket.AF_UNIX) as line:
                    line.connect(ear)
                    line.sendall(f"{name}\n".encode())
                    line.recv(1)
            return made

        return doing

    for name in ("attach", "finish"):
        setattr(shards, name, noted(name, getattr(shards, name)))


def _die(commit: int, *, before: bool, of: str | None = None) -> None:
    from sqlalchemy.engine.default import DefaultDialect

    numbers, do_commit = itertools.count(1), DefaultDialect.do_commit

    def committing(self: Any, connection: Any) -> None:
        counts = of in (None, vars(_under_way).pop("what", None))
        last = counts and next(numbers) == commit
        if last and before:
            os.kill(os.getpid(), signal.SIGKILL)
        do_commit(self, connection)  # type: ignore[no-untyped-call]
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    DefaultDialect.do_commit = committing  # type: ignore[method-assign]


def _lease(seconds: float) -> None:
    from pipeline.checkpoint.store import SqlStore

    defaults = SqlStore.__init__.__kwdefaults__
    assert defaults is not None
    assert "lease_seconds" in defaults
    defaults["lease_seconds"] = seconds


def _set(path: str, value: float) -> None:
    """Make a wait another: outages are long, and nothing here is worth waiting for."""
    module, _, name = path.rpartition(".")
    found = importlib.import_module(module)
    assert isinstance(getattr(found, name), float), f"{path} is gone"
    setattr(found, name, value)


if __name__ == "__main__":
    assert Path(__file__).parent == Path(sys.path[0])
    main()
