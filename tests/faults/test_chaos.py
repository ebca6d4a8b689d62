"""The chaos harness: seeds of each kind, and that its judge is one who can convict."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from chaos import plan
from chaos.__main__ import main
from chaos.judge import Verdict, judge_arrivals, judge_letters, judge_queries, judge_runs
from chaos.rows import SYNC, Rows, good, reason

from pipeline.model import Counts, DeadLetter, Result, Window
from pipeline.ports import DeadLetterRecord, RunRecord

ROOT = Path(__file__).parents[2]
WINDOW = Window(start=0, sequence=1)
LATER = Window(start=1_700_000_000, sequence=2)
ISSUED = range(1, 621)
USERS = Rows(call="identify")
LAST_LINE = re.compile(
    r"seeds (?P<seeds>\d+), kills (?P<kills>\d+), rows (?P<rows>\d+), "
    r"duplicates (?P<duplicates>\d+), losses (?P<losses>\d+), failures (?P<failures>\d+)"
)


def chaos(*arguments: str, folder: Path | None = None) -> tuple[int, dict[str, int], str]:
    """Exit code, the numbers of the last line, and all that was said. folder: of what failed."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "support")))
    done = subprocess.run(
        [sys.executable, "-m", "chaos", *arguments],
        env=os.environ | {"PYTHONPATH": path} | ({"TMPDIR": str(folder)} if folder else {}),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    last = LAST_LINE.match(done.stdout.splitlines()[-1])
    assert last is not None, done.stdout
    return done.returncode, {key: int(text) for key, text in last.groupdict().items()}, done.stdout


@pytest.mark.slow
def test_twenty_seeds_lose_nothing() -> None:
    code, told, said = chaos("--seeds", "20")
    assert code == 0, said
    assert (told["seeds"], told["losses"], told["failures"]) == (20, 0, 0)
    assert told["kills"] >= 20
    assert told["duplicates"] > 0


@pytest.mark.slow
def test_a_postgres_that_is_restarted_loses_nothing() -> None:
    code, told, said = chaos("--seeds", "2", "--state", "postgres")
    assert code == 0, said
    assert told["losses"] == 0


@pytest.mark.slow
def test_processes_that_share_a_run_lose_nothing() -> None:
    code, told, said = chaos("--seeds", "1", "--state", "postgres", "--fleet", "3")
    assert code == 0, said
    assert told["losses"] == 0


@pytest.mark.slow
def test_a_shared_run_that_is_closed_too_early_is_found(tmp_path: Path) -> None:
    options = ("--state", "postgres", "--fleet", "3", "--sabotage", "close")
    code, told, said = chaos("--seed", "4", *options, folder=tmp_path)
    assert code == 1
    assert told["losses"] > 0
    assert "rows that never came" in said
    assert "again: make chaos SEED=4 STATE=postgres FLEET=3" in said


def test_processes_that_share_a_run_need_a_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["chaos", "--fleet", "3"])
    with pytest.raises(SystemExit):
        main()
    assert "need a server: --state postgres" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defect", "found"), [("forget", "rows that never came"), ("spoil", "not the row's")]
)
def test_a_defect_of_the_engine_is_found(defect: str, found: str, tmp_path: Path) -> None:
    code, told, said = chaos("--seed", "4", "--sabotage", defect, folder=tmp_path)
    assert code == 1
    assert told["failures"] == 1
    assert found in said
    assert "again: make chaos SEED=4 STATE=sqlite" in said


# ---------------------------------------------------------------------- plans


def test_a_seed_has_one_plan() -> None:
    assert plan.make(7) == plan.make(7)
    assert plan.make(7) != plan.make(8)


def test_plans_are_varied_and_their_faults_are_understood() -> None:
    from pipeline.local.faults import FaultPlan

    plans = [plan.make(seed, fleet=1 + seed % 3, postgres=seed % 3 > 0) for seed in range(90)]
    jobs = [job for one in plans for job in one.jobs]
    lives = [life for job in jobs for member in job.lives for life in member]
    for life in lives:
        FaultPlan.parse(life.bigquery)
        FaultPlan.parse(life.sink)
    assert {life.ending for life in lives} == {
        "kill", "term", "term twice", "pause", "twin", "die", "none"
    }  # fmt: skip
    assert {key for life in lives for key in life.child} == {
        "clock", "disk", "die", "commit_every", "patience"
    }  # fmt: skip
    assert {len(job.lives) for job in jobs} == {1, 2, 3}
    given_up = [job.given_up for job in jobs if job.given_up is not None]
    assert {how.paused for how in given_up} == {True, False}
    assert any(one.ordered for one in plans)
    assert any(one.spooled for one in plans)


def test_an_ordered_sync_never_has_two_senders() -> None:
    plans = [plan.make(seed, fleet=1 + seed % 3, postgres=True) for seed in range(90)]
    jobs = [job for one in plans if one.ordered for job in one.jobs]
    lives = [life for job in jobs for member in job.lives for life in member]
    assert {len(job.lives) for job in jobs} == {1, 2, 3}
    assert all(life.ending not in {"pause", "twin"} for life in lives)
    assert not any(job.given_up is not None and job.given_up.paused for job in jobs)


def test_a_job_that_is_given_up_is_followed_by_one_on_its_window() -> None:
    plans = [plan.make(seed, fleet=3, postgres=True) for seed in range(60)]
    given_up = [[job.given_up is not None for job in one.jobs] for one in plans]
    assert any(any(jobs) for jobs in given_up)
    assert all(jobs.count(False) == 2 and not jobs[-1] for jobs in given_up)
    assert not any(job.given_up for seed in range(60) for job in plan.make(seed).jobs)


# ---------------------------------------------------------------------- the judge


def delivered() -> list[bytes]:
    return [USERS.line(row, WINDOW.start, WINDOW.sequence) for row in sorted(good(ISSUED))]


def of_arrivals(lines: list[bytes], rows: Rows = USERS, *, ordered: bool = False) -> Verdict:
    verdict = Verdict()
    judge_arrivals(
        verdict, "one", lines, rows=rows, issued=ISSUED, windows=[WINDOW, LATER], ordered=ordered
    )
    return verdict


def letters(left_out: int = 0) -> list[DeadLetterRecord]:
    return [
        DeadLetterRecord(
            id=row,
            run="run",
            sync=SYNC,
            destination="one",
            at=0.0,
            letter=DeadLetter(
                stream=0,
                row=row,
                reason=str(reason(row)),
                message="",
                payload=USERS.line(row, WINDOW.start, WINDOW.sequence),
            ),
        )
        for row in ISSUED
        if reason(row) is not None and row != left_out
    ]


def of_letters(found: list[DeadLetterRecord]) -> Verdict:
    verdict = Verdict()
    judge_letters(verdict, "one", found, rows=USERS, issued=ISSUED, windows=[WINDOW])
    return verdict


def test_what_is_as_it_should_be_is_no_problem() -> None:
    lines = delivered()
    again = [USERS.line(1, LATER.start, LATER.sequence), lines[4], lines[4]]
    verdict = of_arrivals([*lines, *again])
    assert (verdict.problems, verdict.losses) == ([], 0)
    assert (verdict.arrived, verdict.duplicates) == (len(lines) + 3, 2)
    assert of_letters(letters()).problems == []


def test_a_row_that_never_came_is_a_loss() -> None:
    lines = delivered()
    del lines[9]
    verdict = of_arrivals(lines)
    assert verdict.losses == 1
    assert "rows that never came: 1 (12)" in verdict.problems[0]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (USERS.line(5, 0, 1).replace(b"Zo", b"Za"), "not the row's"),
        (USERS.line(5, 3, 1), "not the row's"),  # the messageId of no window
        (USERS.line(ISSUED.stop, 0, 1), "nobody issued"),
        (USERS.line(11, 0, 1), "or that are bad"),
    ],
)
def test_what_should_not_have_come_is_a_problem(line: bytes, what: str) -> None:
    verdict = of_arrivals([*delivered(), line])
    assert verdict.losses == 0
    assert what in verdict.problems[0]


def test_a_row_that_overtakes_another_of_its_user_is_a_problem() -> None:
    rows = Rows(call="track")
    numbers = sorted(good(ISSUED))
    lines = [rows.line(row, 0, 1) for row in numbers]
    assert of_arrivals([*lines, *lines[3:]], rows, ordered=True).problems == []
    first, second = numbers.index(100), numbers.index(189)  # of one user
    lines[first], lines[second] = lines[second], lines[first]
    assert "overtaken: 1 (100)" in of_arrivals(lines, rows, ordered=True).problems[0]
    assert of_arrivals(lines, rows).problems == []


def test_a_bad_row_without_a_dead_letter_is_a_loss() -> None:
    verdict = of_letters(letters(left_out=11))
    assert verdict.losses == 1
    assert "bad rows without a dead letter: 1 (11)" in verdict.problems[0]


def record(sequence: int, *, rows: int = 5, delivered: int = 5) -> RunRecord:
    return RunRecord(
        id=f"run {sequence}",
        sync=SYNC,
        window=Window(start=0, sequence=sequence),
        started=0.0,
        finished=1.0,
        result=Result.COMPLETE,
        error="",
        query_started=0,
        rows=rows,
        bytes_billed=0,
        counts={"one": Counts(read=rows, delivered=delivered)},
    )


@pytest.mark.parametrize(
    ("runs", "what"),
    [
        ([record(1)], "2 windows were to be completed, and [1] were"),
        ([record(1), record(1)], "and [1, 1] were"),
        ([record(1), record(2, delivered=4)], "one: run run 2 has 5 rows"),
    ],
)
def test_a_history_that_does_not_add_up_is_a_problem(runs: list[RunRecord], what: str) -> None:
    verdict = Verdict()
    judge_runs(verdict, runs, [], sinks=["one"], jobs=2)
    assert what in verdict.problems[0]


def test_a_history_that_adds_up_is_none() -> None:
    verdict = Verdict()
    judge_runs(verdict, [record(1), record(2), record(3)], [], sinks=["one"], jobs=2)
    assert verdict.problems == []


def of_queries(*queries: str) -> list[str]:
    verdict = Verdict()
    judge_queries(verdict, queries, [record(1), record(2)])
    return verdict.problems


def test_each_attempt_starts_its_query_once() -> None:
    assert of_queries("run 1_0", "run 2_0") == []
    assert of_queries("run 2_0") == []  # the other reads an earlier attempt's result
    assert of_queries("run 1_0", "run 1_1") == ["The query ran more than once for run 1."]
    assert of_queries("run 3_0") == ["Queries ran for no run: run 3."]
