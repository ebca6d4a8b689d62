"""The local BigQuery and Customer.io as processes of their own, and the command against them.

Threads would share gRPC's event loop machinery with the command that is under test.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline.cli.app import run

KEY = "sk-the-secret-key"
PATIENCE = 60


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Services:
    """rest, storage: the BigQuery's. customerio: a base URL; it accepts KEY alone."""

    rest: str
    storage: str
    customerio: str

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.customerio}/_local/stats", timeout=PATIENCE) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


def environment() -> dict[str, str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RETL_", "KUBERNETES_"))
    }
    root = Path(__file__).parents[2]
    return clean | {"PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}


def retl(config: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Done:
    """In this process, because starting one takes a second."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment() | dict(env or {}), clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = run(["--config", str(config), *arguments])
    return Done(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def local(*arguments: str) -> Iterator[dict[str, str]]:
    """`retl local ARGUMENTS`; what it says of where it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "local", *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(PATIENCE)
        process.stdout.close()


@contextlib.contextmanager
def services(folder: Path, faults: str = "") -> Iterator[Services]:
    """Both. faults: a plan for the BigQuery."""
    plan = folder / "faults.yml"
    plan.write_text(faults or "[]", encoding="utf-8")
    with local("bigquery", "--faults", str(plan)) as bq, local("customerio", "--key", KEY) as cio:
        yield Services(rest=bq["rest"], storage=bq["storage"], customerio=cio["url"])
