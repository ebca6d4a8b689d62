"""What many processes on one Run are worth: a model of 1 to 64 shards, and a real run beside it.

    python benchmarks/shards_model.py              about a minute
    python benchmarks/shards_model.py --quick      few cases, and no real run

`_shards.py` is the model, with the engine's own rules of shares, rates, concurrency, Checkpoints.
docs/scaling.md says what follows. It is no measurement: the figures of BigQuery's streams, of
answers and of Kubernetes are assumptions, and stand in `Case`. The real run is one process under a
rate limit, against a server on loopback; it holds the model to the engine in one point.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from _harness import local_service, report
from _shards import run
from _shards_case import Case, Outcomes

from pipeline import load_config, run_sync
from pipeline.cli.loop import run_async
from pipeline.source.streams import stream_count

Figures = dict[str, dict[str, float]]

_SEED = 7
_LIMITS = {
    "own speed": Case(rate=None),
    "answers in 1 s": Case(rate=None, latency=1.0),
    "1,000 requests/s": Case(rate=1_000.0),
    "100 requests/s": Case(rate=100.0),
}
# Of each shard, where nothing limits them together, so that runs are of one length.
_ROWS_OF_SHARD = {"own speed": 3_000_000, "answers in 1 s": 2_000_000}
_CONFIG = """
version: 1
sources: {{files: {{type: file, path: "{path}"}}}}
destinations: {{cio: {{type: customerio, api_key: key, endpoint: "{url}/v1"}}}}
syncs: {{users: {{source: files, call: identify, destinations: [cio]}}}}
send: {{rate_limit: {{requests_per_second: {rate}}}}}
state: "sqlite:///{state}"
"""


def sizes(rows: int, streams: int, skew: str) -> tuple[int, ...]:
    """Rows of each stream: `even`, or `lognormal SIGMA` (0.5: one in 40 has 2.7 medians)."""
    dice = random.Random(_SEED)  # noqa: S311 - a model, no secret
    sigma = float(skew.partition(" ")[2] or 0)
    weights = [dice.lognormvariate(0, sigma) for _ in range(streams)]
    upto = [round(rows * each / sum(weights)) for each in accumulate(weights)]
    return tuple(end - start for start, end in pairwise([0, *upto]))


def played(case: Case) -> Outcomes:
    """A case's outcomes, once they are sound: nothing lost, and sent again only after deaths."""
    outcomes = run(case)
    if outcomes.settled != case.rows or (not case.deaths and outcomes.sent != case.rows):
        raise SystemExit(f"The model lost or repeated rows: {outcomes.settled:,} of {case.rows:,}.")
    return outcomes


def figures(case: Case, outcomes: Outcomes) -> dict[str, float]:
    """What is reported of a case. used: share of what the narrowest limit lets through."""
    seconds = outcomes.seconds
    return {
        "seconds": round(seconds, 1),
        "used": round(case.rows / seconds / case.capacity, 3),
        "tail": round(outcomes.tail, 2),
        "again": outcomes.sent - case.rows,
        "widest": outcomes.widest,
        "full": round(case.rows / case.request_rows / outcomes.requests, 3),
        "transactions": round(outcomes.transactions / seconds, 1),
        "checkpoints": round(outcomes.checkpoints / seconds),
    }


def told(title: str, cases: Iterator[tuple[str, Case]]) -> Figures:
    """Play and print one table."""
    print(f"\n{title}")
    found: Figures = {}
    for name, case in cases:
        found[name] = of = figures(case, played(case))
        print(
            f"  {name:34}{of['seconds']:8,.1f} s  used {of['used']:4.0%}  tail {of['tail']:5.2f}  "
            f"again {of['again']:9,}  full {of['full']:4.0%}  in a second {of['widest']:6,}  "
            f"transactions/s {of['transactions']:5.1f}  Checkpoints/s {of['checkpoints']:5,}",
            flush=True,
        )
    return found


def shared(case: Case, shards: int, rows: int) -> Case:
    """The case with so many shards, and as many streams as the engine asks for."""
    of = sizes(rows, stream_count(case.reads, shards).most, "lognormal 0.5")
    return replace(case, shards=shards, sizes=of)


def by_shards(rows: int, shards: Sequence[int]) -> Iterator[tuple[str, Case]]:
    """1 to 64 shards under each kind of limit. rows: where it is one of all shards together."""
    for limit, case in _LIMITS.items():
        for number in shards:
            of_all = _ROWS_OF_SHARD.get(limit, 0) * number or rows
            yield f"{limit}, {number}", shared(case, number, of_all)


def by_streams(rows: int, per_shard: Sequence[int]) -> Iterator[tuple[str, Case]]:
    """Streams for each of 8 shards, as even as BigQuery may make them; nothing else limits them."""
    for skew in ("even", "lognormal 0.5", "lognormal 1"):
        for number in per_shard:
            of = sizes(rows, 8 * number, skew)
            yield f"{skew}, {number}", replace(_LIMITS["own speed"], shards=8, sizes=of)


def by_rate(rows: int, shards: Sequence[int]) -> Iterator[tuple[str, Case]]:
    """A rate limit of few requests per shard, down to less than one."""
    for number in shards:
        yield f"20 requests/s, {number}", shared(Case(rate=20.0), number, rows)


def _at_random(shards: int, every: float, until: float) -> tuple[tuple[float, int], ...]:
    """Deaths of each shard's process, `every` seconds on average."""
    dice = random.Random(_SEED)  # noqa: S311 - a model, no secret
    found = []
    for shard in range(shards):
        at = dice.expovariate(1 / every)
        while at < until:
            found.append((at, shard))
            at += dice.expovariate(1 / every)
    return tuple(found)


def by_deaths(rows: int, shards: Sequence[int]) -> Iterator[tuple[str, Case]]:
    """One killed or drained half-way; and processes that die every two or ten minutes."""
    for number in shards:
        for limit in ("own speed", "100 requests/s"):
            plain = shared(_LIMITS[limit], number, rows)
            half = plain.rows / plain.capacity / 2
            yield f"{number}, {limit}, none", plain
            yield f"{number}, {limit}, one killed", replace(plain, deaths=((half, 0),))
            yield (
                f"{number}, {limit}, one drained",
                replace(plain, deaths=((half, 0),), drained=True),
            )
        for every in (600, 120):
            deaths = _at_random(number, every, 2 * half)
            yield f"{number}, 100 requests/s, every {every} s", replace(plain, deaths=deaths)


def against_reality(rows: int, rate: float) -> dict[str, float]:
    """One process, by the model and for real, under a rate limit that both have to keep."""
    with (
        local_service("customerio", "--mode", "sink") as customerio,
        tempfile.TemporaryDirectory() as folder,
    ):
        path, config = Path(folder, "rows.arrow"), Path(folder, "retl.yml")
        table = pa.table(
            {
                "userId": np.arange(rows),
                "about": pa.array(["a word or two of what is known " * 7] * rows),
            }
        )
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4_000)
        state = Path(folder, "state.db")
        config.write_text(
            _CONFIG.format(path=path, url=customerio["url"], rate=rate, state=state),
            encoding="utf-8",
        )
        loaded = load_config(config)
        started = time.perf_counter()
        outcome = run_async(run_sync(loaded, "users"))
        real = time.perf_counter() - started
    counts = outcome.destinations["cio"]
    if outcome.exit_code or counts.delivered != rows:
        raise SystemExit(f"the real run failed: {outcome.error}")
    per_request = -(-rows // counts.requests)
    case = Case(shards=1, sizes=(rows,), rate=rate, request_rows=per_request, latency=0.002)
    model = played(case)
    print(
        f"\nOne process at {rate:g} requests/s, {rows:,} rows: {counts.requests} requests in "
        f"{real:.2f} s for real, {model.requests} in {model.seconds:.2f} s by the model"
    )
    return {"real": round(real, 2), "model": round(model.seconds, 2), "requests": counts.requests}


def main() -> None:
    """Play all, and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few cases, and no real run")
    quick = parser.parse_args().quick
    rows = 4_000_000 if quick else 30_000_000
    shards = (1, 8) if quick else (1, 2, 4, 8, 16, 32, 64)
    found: Figures = {}
    for title, cases in (
        ("Shards under each kind of limit", by_shards(rows, shards)),
        (
            "Streams per shard, 8 shards",
            by_streams(rows, (8,) if quick else (1, 4, 8, 16, 64, 125)),
        ),
        ("Few requests per second and shard", by_rate(rows // 10, shards)),
        ("Deaths", by_deaths(rows, (8,) if quick else (8, 32))),
    ):
        found |= told(title, cases)
    ratios, goals = judged(found)
    if not quick:
        real = against_reality(350_000, 40.0)
        found["one process, 40 requests/s"] = real
        ratios["real to model, one process"] = ratio = real["real"] / real["model"]
        away = max(ratio, 1 / ratio)
        goals["seconds for real to the model's, or the other way, one process"] = (away, "<=", 1.1)
    report("shards_model", found, ratios, goals)


def judged(found: Figures) -> tuple[dict[str, float], dict[str, tuple[float, str, float]]]:
    """Ratios and goals of what is in every run, long or short."""
    alone, eight = found["own speed, 1"], found["own speed, 8"]
    together = [of for name, of in found.items() if name.startswith("1,000 requests/s")]
    ratios = {"speedup of 8 shards, own speed": 8 * alone["seconds"] / eight["seconds"]}
    return ratios, {
        "one shard, used of its own speed": (alone["used"], ">=", 0.8),
        "8 shards, used of their own speed": (eight["used"], ">=", 0.5),
        "8 shards of 8 streams each, lognormal 0.5, tail": (
            found["lognormal 0.5, 8"]["tail"],
            "<=",
            1.6,
        ),
        "requests in any second to the limit of 1,000": (
            max(of["widest"] for of in together) / 1_000,
            "<=",
            1.0,
        ),
    }


if __name__ == "__main__":
    main()
