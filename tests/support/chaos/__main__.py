"""`python -m chaos`: many seeds, two at a time; the last line sums them up.

Exit code 0 only without a loss or any other problem, and, over enough seeds, only if the faults
and duplicates that it is all about were in fact seen.
"""

# ruff: noqa: T201 - printing is what a command does

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from chaos.sabotage import SABOTAGES
from chaos.seed import Outcome, Setting, attempt

_ENOUGH = 20
"""Seeds from which on each kind of fault has to have happened."""

_SEEN = frozenset(("kill", "term", "pause", "takeover", "clock", "exit -9", "exit 75"))
_SEEN_OF_FLEETS = frozenset(("twin", "given up", "stranded", "die at finish"))
_MET = ("batch 429", "batch 503", "batch reset", "read_rows lost session", "connection reset")


def main() -> int:
    """The exit code."""
    options = _options()
    seeds = range(options.first, options.first + options.seeds)
    if options.seed is not None:
        seeds = range(options.seed, options.seed + 1)
    # Processes are started beside gRPC's threads, and none of them ever uses gRPC after its fork.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    begun, outcomes = time.monotonic(), []
    root = Path(tempfile.mkdtemp(prefix="retl-chaos-"))
    setting = Setting(
        root=root,
        postgres=options.state == "postgres",
        fleet=options.fleet,
        sabotage=options.sabotage,
    )
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(attempt, seed, setting) for seed in seeds]
        for future in as_completed(waiting):
            outcomes.append(future.result())
            _tell(outcomes[-1], options, root)
    failed = sorted(one.seed for one in outcomes if one.verdict.problems)
    unseen = []
    if len(outcomes) >= _ENOUGH:
        more = {"restart"} if setting.postgres else {"disk"}
        more |= _SEEN_OF_FLEETS if setting.fleet > 1 else {"die at commit"}
        unseen = _unseen(outcomes, more)
    print(f"exits and faults: {_sums(one.counts for one in outcomes)}")
    print(f"faults of the servers: {_sums(one.met for one in outcomes)}")
    if unseen:
        print(f"never happened, so nothing is known of it: {', '.join(unseen)}")
    if failed:
        print(f"failed: {', '.join(map(str, failed))}; what they left is in {root}")
    else:
        shutil.rmtree(root)
    print(
        f"seeds {len(outcomes)}, kills {sum(one.kills for one in outcomes)}, "
        f"rows {sum(one.rows for one in outcomes)}, "
        f"duplicates {sum(one.verdict.duplicates for one in outcomes)}, "
        f"losses {sum(one.verdict.losses for one in outcomes)}, "
        f"failures {len(failed)}, seconds {time.monotonic() - begun:.0f}"
    )
    return 1 if failed or unseen else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=_ENOUGH, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--state", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--fleet", type=int, default=1, help="processes that share a run")
    parser.add_argument("--workers", type=int, default=2, help="seeds at a time")
    parser.add_argument("--verbose", action="store_true", help="what was done in each seed")
    parser.add_argument("--sabotage", choices=[*SABOTAGES], help="put a defect in")
    options = parser.parse_args()
    if options.fleet > 1 and options.state == "sqlite":
        parser.error("processes that share a run need a server: --state postgres")
    return options


def _tell(outcome: Outcome, options: argparse.Namespace, root: Path) -> None:
    for problem in outcome.verdict.problems:
        print(f"seed {outcome.seed}: {problem}")
    if outcome.verdict.problems:
        again = f"make chaos SEED={outcome.seed} STATE={options.state} FLEET={options.fleet}"
        print(f"again: {again}; its logs: {root / str(outcome.seed) / 'logs'}")
    if options.verbose:
        print(
            f"seed {outcome.seed}: {outcome.rows} rows, {outcome.verdict.arrived} arrived, "
            f"{outcome.verdict.duplicates} twice, {outcome.seconds:.1f} s; "
            f"{_sums([outcome.counts])}; {_sums([outcome.met])}"
        )
    sys.stdout.flush()


def _unseen(outcomes: Iterable[Outcome], more: set[str]) -> list[str]:
    counts = sum((one.counts for one in outcomes), Counter())
    met = sum((one.met for one in outcomes), Counter())
    missing = [name for name in sorted(_SEEN | more) if not counts[name]]
    missing += [name for name in _MET if not met[name]]
    if not sum(one.verdict.duplicates for one in outcomes):
        missing.append("a row that was sent again")
    return missing


def _sums(counters: Iterable[Counter[str]]) -> str:
    total = sum(counters, Counter())
    return ", ".join(f"{name} {count}" for name, count in sorted(total.items())) or "none"


if __name__ == "__main__":
    sys.exit(main())
