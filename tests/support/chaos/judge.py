"""What must hold when a seed is over: conservation, integrity, order, and the state's own counts.

Customer.io's record is the truth. Every row that was issued is an obligation, at each destination:
delivered in some window, to the byte as it should be, or kept as a dead letter if it is bad.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from chaos.rows import SYNC, Rows, good, number, reason

from pipeline.model import Result, Window
from pipeline.ports import DeadLetterRecord, RunRecord, Store

_SHOWN = 5
_ALL = 10**6


@dataclass(kw_only=True)
class Verdict:
    """problems: in words; empty when all is well. losses: obligations that were not met.

    arrived: calls that Customer.io took. duplicates: those of them that it had already.
    """

    problems: list[str] = field(default_factory=list)
    losses: int = 0
    arrived: int = 0
    duplicates: int = 0

    def lost(self, what: str, rows: Iterable[int]) -> None:
        """Rows that should have come and did not."""
        if found := sorted(rows):
            self.losses += len(found)
            self.problems.append(f"{what}: {_some(found)}")

    def wrong(self, what: str, rows: Iterable[int]) -> None:
        """Rows that are where they should not be, or other than they should be."""
        if found := sorted(rows):
            self.problems.append(f"{what}: {_some(found)}")


def judge_arrivals(
    verdict: Verdict,
    sink: str,
    lines: Sequence[bytes],
    *,
    rows: Rows,
    issued: range,
    windows: Sequence[Window],
    ordered: bool,
) -> None:
    """Of one destination: everything came, and nothing else, and as it should be."""
    found = _rows(lines)
    numbers = [found[line] for line in lines]
    verdict.arrived += len(lines)
    verdict.duplicates += len(lines) - len(found)
    came = set(numbers)
    verdict.lost(f"{sink}: rows that never came", good(issued) - came)
    verdict.wrong(f"{sink}: rows that nobody issued, or that are bad", came - good(issued))
    verdict.wrong(
        f"{sink}: payloads that are not the row's",
        (row for line, row in found.items() if not _is_rows(line, row, rows, windows)),
    )
    if ordered:
        verdict.wrong(f"{sink}: rows that were overtaken", _overtaken(numbers, rows))


def judge_letters(
    verdict: Verdict,
    sink: str,
    letters: Sequence[DeadLetterRecord],
    *,
    rows: Rows,
    issued: range,
    windows: Sequence[Window],
) -> None:
    """Of one destination: every bad row is kept, with its reason, and no other."""
    kept = {letter.id: number(letter.letter.payload) for letter in letters}
    bad = set(issued) - good(issued)
    verdict.lost(f"{sink}: bad rows without a dead letter", bad - {*kept.values()})
    verdict.wrong(f"{sink}: dead letters of good rows", {*kept.values()} - bad)
    verdict.wrong(
        f"{sink}: dead letters with another reason",
        (kept[one.id] for one in letters if one.letter.reason != reason(kept[one.id])),
    )
    verdict.wrong(
        f"{sink}: dead letters whose payloads are not the row's",
        (
            kept[one.id]
            for one in letters
            if one.letter.reason == "rejected_400"
            and not _is_rows(one.letter.payload, kept[one.id], rows, windows)
        ),
    )


def judge_runs(
    verdict: Verdict,
    runs: Sequence[RunRecord],
    letters: Sequence[DeadLetterRecord],
    *,
    sinks: Iterable[str],
    jobs: int,
) -> None:
    """Of the history: it adds up, and says that each window was completed once."""
    complete = [run for run in runs if run.result is Result.COMPLETE]
    # A process that dies after its last commit is started again, and opens the next window.
    windows = sorted(run.window.sequence for run in complete)
    if len(windows) < jobs or windows != list(range(1, len(windows) + 1)):
        verdict.problems.append(f"{jobs} windows were to be completed, and {windows} were.")
    for run in complete:
        for sink in sinks:
            counts = run.counts[sink]
            kept = sum(one.run == run.id and one.destination == sink for one in letters)
            told = (run.rows, counts.read, counts.delivered + counts.dead_lettered)
            if len({*told}) > 1 or kept != counts.dead_lettered:
                verdict.problems.append(
                    f"{sink}: run {run.id} has {run.rows} rows, read {counts.read}, delivered "
                    f"{counts.delivered}, {counts.dead_lettered} dead letters; {kept} are kept."
                )


def judge_queries(verdict: Verdict, queries: Sequence[str], runs: Sequence[RunRecord]) -> None:
    """Of BigQuery's jobs: each attempt has started its query once at most, whoever did it.

    A job is named by the run's id and the number of the try.
    """
    started = Counter(query.rpartition("_")[0] for query in queries)
    twice = sorted(run for run, times in started.items() if times > 1)
    if twice:
        verdict.problems.append(f"The query ran more than once for {', '.join(twice)}.")
    if strange := started.keys() - {run.id for run in runs}:
        verdict.problems.append(f"Queries ran for no run: {', '.join(sorted(strange))}.")


def judge_state(verdict: Verdict, store: Store, *, sinks: Iterable[str], jobs: int) -> None:
    """Of the state as it is left: see judge_runs; and nothing is under way any more."""
    judge_runs(
        verdict,
        store.runs(SYNC, _ALL),
        store.dead_letters(limit=_ALL),
        sinks=sinks,
        jobs=jobs,
    )
    if any(one.unfinished or one.holder for one in store.syncs()):
        verdict.problems.append("A run is still open, or a lease held, though all is over.")
    details = [store.run(one.id) for one in store.runs(SYNC, _ALL)]
    if any(one is not None and one.shards for one in details):
        verdict.problems.append("A run that is over still has shards.")


def _rows(lines: Iterable[bytes]) -> Mapping[bytes, int]:
    """Each different payload, and the row it is of."""
    found: dict[bytes, int] = {}
    for line in lines:
        if line not in found:
            found[line] = number(line)
    return found


def _is_rows(line: bytes, row: int, rows: Rows, windows: Sequence[Window]) -> bool:
    return any(line == rows.line(row, one.start, one.sequence) for one in windows)


def _overtaken(numbers: Sequence[int], rows: Rows) -> Iterable[int]:
    """Rows that came for the first time after a later one of the same user."""
    seen: set[int] = set()
    latest: dict[int, int] = {}
    for row in numbers:
        user = rows.user(row)
        if row not in seen and row < latest.get(user, row):
            yield row
        seen.add(row)
        latest[user] = max(row, latest.get(user, row))


def _some(rows: Sequence[int]) -> str:
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return f"{len(rows)} ({', '.join(map(str, rows[:_SHOWN]))}{more})"
