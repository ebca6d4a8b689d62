"""The demo from start to end, as a newcomer runs it, only smaller."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipeline.cli.app import run
from pipeline.cli.demo_report import check
from pipeline.model import Counts, Result, Window
from pipeline.run.report import RunReport

ROOT = Path(__file__).parents[2]
PATIENCE = 120
SYNCS = ("users", "events", "companies", "pages", "screens", "aliases")


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RETL_")}
    return clean | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "demo", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_the_demo_adds_up_and_what_it_recommends_works(tmp_path: Path) -> None:
    demo = start(tmp_path, "--rows", "2000")
    children = psutil.Process(demo.pid).children
    out, err = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 0, out + err
    assert not psutil.pid_exists(demo.pid) or not children()
    for sync in SYNCS:
        assert sync in out
    assert "WRONG" not in out
    assert "missing_id" in out
    assert "payload_too_large" in out
    assert max(map(len, (line for line in out.splitlines() if "retl" not in line))) <= 80
    # Each command that the demo recommends, word by word, but for those that start servers.
    recommended = [line.strip() for line in out.splitlines() if "retl.yml" in line]
    assert len(recommended) == 4
    for command in recommended:
        if "preview" in command:
            continue
        done = subprocess.run(
            shlex.split(command),
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout
    again = start(tmp_path, "--rows", "20")
    out, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, out + err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_its_servers_end_with_it_however_it_ends(tmp_path: Path, number: int) -> None:
    demo = start(tmp_path, "--rows", "2000")
    assert demo.stderr is not None
    for line in demo.stderr:
        if "local servers" in line:
            break
    children = psutil.Process(demo.pid).children()
    assert len(children) == 2
    demo.send_signal(number)
    demo.communicate(timeout=PATIENCE)
    assert demo.returncode == (75 if number != signal.SIGKILL else -signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert alive == []


def test_it_removes_only_what_a_demo_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years")
    assert run(["demo", "--keep", "work"]) == 64
    assert "no demo made" in capsys.readouterr().err
    assert (tmp_path / "work" / "thesis.txt").read_text() == "years"


def report(read: int, delivered: int, dead: int, result: Result = Result.COMPLETE) -> RunReport:
    return RunReport(
        sync="users",
        run="r",
        result=result,
        window=Window(start=0, sequence=1),
        query_started=1,
        rows=read,
        bytes_processed=0,
        bytes_billed=0,
        seconds=1,
        destinations={"cio": Counts(read=read, delivered=delivered, dead_lettered=dead)},
    )


@pytest.mark.parametrize(
    ("rounds", "accepted", "dropped", "said"),
    [
        ([[report(10, 9, 1)], [report(2, 2, 0)]], 11, {}, None),
        ([[report(10, 9, 1)], [report(2, 2, 0)]], 10, {}, "11 rows delivered, but 10 arrived"),
        ([[report(10, 8, 1)], [report(2, 2, 0)]], 10, {}, "10 rows read, but 9 settled"),
        ([[report(10, 9, 1)], [report(12, 12, 0)]], 21, {}, "more than the first's 10"),
        ([[report(10, 9, 1)], [report(2, 2, 0)]], 11, {"too big": 3}, "3 calls dropped: too big"),
        (
            [[report(10, 9, 1)], [report(2, 2, 0, Result.INTERRUPTED)]],
            *(11, {}, "round 2, users: not complete"),
        ),
    ],
)
def test_what_does_not_add_up_is_told(
    rounds: list[list[RunReport]], accepted: int, dropped: dict[str, int], said: str | None
) -> None:
    faults = check(rounds, {"accepted": accepted, "dropped": dropped})
    assert faults == [] if said is None else any(said in fault for fault in faults)
