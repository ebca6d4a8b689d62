"""The demo's two servers as child processes that always end with it.

Their standard input is a pipe from here, and they end when it closes: so they go when this
process goes, however it went. They live in a session of their own, so that Ctrl-C reaches only
the demo, which first lets the engine drain.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.errors import PipelineError

# A cold start imports DuckDB and Arrow from a slow disk.
READY_SECONDS = 60.0
END_SECONDS = 5.0
TAIL_LINES = 5


@dataclass(frozen=True, slots=True)
class Child:
    """A running `retl local NAME`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def address(self, deadline: float) -> dict[str, Any]:
        """The line that it prints when it is ready. deadline: by time.monotonic()."""
        pipe = self.process.stdout
        assert pipe is not None  # noqa: S101 - asked for at the start
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        line = pipe.readline() if ready else b""
        if not line:
            why = "ended" if ready else "was not ready in time"
            raise PipelineError(f"The local {self.name} {why}.{self.tail()}")
        address: dict[str, Any] = json.loads(line)
        return address

    def tail(self) -> str:
        """The last lines of its log, for an error message."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = "\n".join(lines[-TAIL_LINES:])
        return f" The end of {self.log}:\n{said}" if said else f" Its log, {self.log}, is empty."

    def end(self) -> None:
        """Ask it to end, wait a little, then make it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process.terminate()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Services:
    """Both servers, from ready to ended; a context manager. Raises PipelineError.

    bigquery, customerio: their addresses, as `retl local` prints them.
    """

    def __init__(self, folder: Path, *, record: bool) -> None:
        self._folder = folder
        self._record = ["--record", str(folder / "received.ndjson")] if record else []
        self._children: list[Child] = []
        self.bigquery: dict[str, Any] = {}
        self.customerio: dict[str, Any] = {}

    @property
    def database(self) -> Path:
        """Where the local BigQuery keeps its tables."""
        return self._folder / "warehouse.duckdb"

    def __enter__(self) -> Self:
        try:
            deadline = time.monotonic() + READY_SECONDS
            bigquery = self._start("bigquery", ["--database", str(self.database)])
            customerio = self._start("customerio", self._record)
            self.bigquery = bigquery.address(deadline)
            self.customerio = customerio.address(deadline)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def check(self) -> None:
        """Raises PipelineError when one has ended by itself."""
        for child in self._children:
            if child.process.poll() is not None:
                raise PipelineError(f"The local {child.name} ended.{child.tail()}")

    def _start(self, name: str, options: list[str]) -> Child:
        log = self._folder / f"{name}.log"
        command = [sys.executable, "-m", "pipeline", "local", name, "--end-with-stdin", *options]
        with log.open("wb") as errors:
            process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def _end(self) -> None:
        for child in self._children:
            child.end()
