"""Rules of docs/architecture.md that no linter knows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "pipeline").rglob("*.py"))
# `async` lives only here; all other rooms decide, and wait for nothing.
WAITING = (
    "pipeline/run/",
    "pipeline/cli/",
    "pipeline/local/",
    "pipeline/wiring/",
    "pipeline/ports/stages.py",
    "pipeline/send/sender.py",
    "pipeline/send/line.py",
    "pipeline/send/ordered.py",
    "pipeline/send/transport.py",
    "pipeline/send/file_transport.py",
    "pipeline/send/part_files.py",
    "pipeline/source/read.py",
    "pipeline/source/idle.py",
    "pipeline/source/table.py",
    "pipeline/source/storage.py",
    "pipeline/source/bigquery.py",
    "pipeline/source/file.py",
    "pipeline/source/spool/",
    "pipeline/source/threads.py",
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_says_what_it_is_for_and_waits_only_where_waiting_lives(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    header = ast.get_docstring(tree)
    assert header, "a module begins with its job and its rules"
    assert len(header.splitlines()) <= 12
    waits = [node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    assert not waits or name(path).startswith(WAITING), f"async in {name(path)}: {waits}"
