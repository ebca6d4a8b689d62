"""A seed's plan: how many rows, which settings, and what goes wrong in each process's life.

Pure: the same seed gives the same plan, so that a failure can be played again. What is decided
here are the faults and the moments they strike at; how processes and servers interleave is theirs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Draw = random.Random


@dataclass(frozen=True, kw_only=True)
class Moment:
    """`delay` seconds after the servers heard the `count`th call `on` of a life; "start": its own.

    The call is heard before it is answered, so without a delay nobody hears an answer.
    """

    on: str
    count: int = 1
    delay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Life:
    """One process of `retl run`, from its start to its end.

    ending: what is done to it at `moment`: "none"; "kill" (SIGKILL); "term", "term twice";
        "pause" (SIGSTOP until another process took its lease and ended); "die" (SIGKILL of its
        own accord, around one of its commits: see child.py).
    child: what child.py does to the process from inside: `clock`, `disk`, `die`, `commit_every`.
    environment: RETL_ variables. bigquery, sink: fault plans of the servers, in YAML.
    rows: so many are issued as it begins. restart: when Postgres is restarted, if ever.
    """

    ending: str = "none"
    moment: Moment = Moment(on="start")
    child: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    bigquery: str = ""
    sink: str = ""
    rows: int = 0
    restart: Moment | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What happens under one seed.

    jobs: for each window, and each process of the fleet in it, the lives it leads until it
        completes; whoever outlives them goes on without faults.
    spooled: rows go through files on disk. ordered: each user's rows keep their order.
    """

    seed: int
    call: str
    rows: int
    message_rows: int
    latency: float
    sinks: int
    spooled: bool
    ordered: bool
    jobs: tuple[tuple[tuple[Life, ...], ...], ...]


def make(seed: int, *, fleet: int = 1, postgres: bool = False) -> Plan:
    """The plan of a seed. fleet: how many processes share a run."""
    draw = random.Random(f"{seed} {fleet} {postgres}")
    call = draw.choice(["identify", "track"])
    ordered = call == "track" and fleet == 1 and draw.random() < 0.6
    jobs = tuple(
        tuple(
            tuple(_life(draw, ordered=ordered, postgres=postgres) for _ in range(_lives(draw)))
            for _ in range(fleet)
        )
        for _ in range(2)
    )
    return Plan(
        seed=seed,
        call=call,
        rows=draw.randint(900, 2_600),
        message_rows=draw.choice([40, 100, 250]),
        latency=draw.choice([0.0, 0.01, 0.04]),
        sinks=draw.choice([1, 1, 2]),
        spooled=draw.random() < 0.3,
        ordered=ordered,
        jobs=jobs,
    )


def _lives(draw: Draw) -> int:
    return draw.choice([1, 2, 2, 3, 4])


def _life(draw: Draw, *, ordered: bool, postgres: bool) -> Life:
    # Where two processes send at once, as around a pause, the order is what the destination
    # makes of it: a lease fences the state, not the destination.
    endings = ["kill"] * 6 + ["term"] * 2 + ["term twice", "die", "die", "none"]
    ending = draw.choice([*endings, *([] if ordered else ["pause", "pause"])])
    # By nature a second, in which a small run is over.
    child: dict[str, object] = {"commit_every": draw.choice([1.0, 0.3, 0.05])}
    if postgres:
        child["commit_every"] = 0.25  # leases are short there
    if ending == "die":
        child["die"] = {"commit": draw.randint(1, 16), "before": draw.random() < 0.5}
    if draw.random() < 0.25:
        child["clock"] = _clock(draw)
    if not postgres and draw.random() < 0.2:
        child["disk"] = _disk(draw)
    return Life(
        ending=ending,
        moment=_moment(draw),
        child=child,
        environment=_environment(draw),
        bigquery=_some(draw, _BIGQUERY, 3),
        sink=_some(draw, _SINK, 2),
        rows=draw.choice([0, 0, draw.randint(1, 300)]),
        restart=_moment(draw) if postgres and draw.random() < 0.25 else None,
    )


def _moment(draw: Draw) -> Moment:
    """Mostly while rows are sent; sometimes while the query runs, or at any time at all."""
    on = draw.choice(["batch"] * 5 + ["read_rows"] * 2 + ["create_read_session", "insert_job"])
    if draw.random() < 0.1:
        return Moment(on="start", delay=draw.uniform(0.0, 1.5))
    count = {"batch": int(10 ** draw.uniform(0, 1.3)), "read_rows": draw.randint(1, 5)}.get(on, 1)
    return Moment(on=on, count=count, delay=draw.choice([0.0, 0.005, draw.uniform(0.0, 1.2)]))


def _clock(draw: Draw) -> dict[str, float]:
    """Seconds that the clock is wrong by at first, and that it jumps by after a while."""
    hour = 3_600.0
    return {
        "offset": draw.choice([0.0, -hour, hour, draw.uniform(-90, 90)]),
        "after": draw.uniform(0.3, 2.0),
        "jump": draw.choice([0.0, -hour, hour, draw.uniform(-90, 90)]),
    }


def _disk(draw: Draw) -> dict[str, int]:
    """A full disk: no file may grow beyond `bytes`; or the state may grow by `pages` only."""
    if draw.random() < 0.5:
        return {"bytes": draw.randint(20, 400) * 1024}
    return {"pages": draw.randint(0, 12)}


def _environment(draw: Draw) -> dict[str, str]:
    return {
        "RETL_CONCURRENCY": draw.choice(["1", "2", "4", "adaptive"]),
        "RETL_BUFFER_BYTES": draw.choice(["1MB", "3MB", "64MB"]),
        "RETL_READ_STREAMS": str(draw.randint(1, 4)),
        "RETL_COMPRESSION": draw.choice(["none", "none", "gzip"]),
    }


def _some(draw: Draw, kinds: tuple[Callable[[Draw], str], ...], most: int) -> str:
    """A fault plan of a few kinds of faults."""
    chosen = draw.sample(kinds, draw.randint(0, most))
    return "\n".join(f"- {{{kind(draw)}}}" for kind in chosen)


def _share(draw: Draw, low: float, high: float) -> str:
    return f"share: {draw.uniform(low, high):.3f}, seed: {draw.randint(0, 10**6)}"


def _after(draw: Draw, most: int) -> str:
    return f"after: {draw.randint(0, most)}"


_BIGQUERY: tuple[Callable[[Draw], str], ...] = (
    lambda d: (
        f"on: read_rows, {_share(d, 0.05, 0.4)}, do: {{error: "
        f"{d.choice(['UNAVAILABLE', 'UNKNOWN', 'ABORTED', 'CANCELLED', 'DEADLINE_EXCEEDED'])}, "
        f"after_messages: {d.randint(0, 3)}}}"
    ),
    lambda d: (
        f"on: read_rows, {_share(d, 0.05, 0.2)}, do: {{wrong: "
        f"{d.choice(['truncated', 'garbled', 'ended'])}, after_messages: {d.randint(0, 2)}}}"
    ),
    lambda d: (
        f"on: read_rows, {_after(d, 5)}, do: {{lose: {d.choice(['session', 'session', 'table'])}, "
        f"after_messages: {d.randint(0, 2)}}}"
    ),
    lambda d: f"on: read_rows, {_after(d, 3)}, do: {{hang: true, after_messages: 1}}",
    lambda d: (
        f"on: read_rows, {_after(d, 3)}, times: {d.randint(1, 6)}, "
        "do: {error: RESOURCE_EXHAUSTED, retry_after: 0.05}"
    ),
    lambda d: f"on: read_rows, {_after(d, 3)}, do: {{reset: true, after_messages: 1}}",
    lambda d: (
        f"on: create_read_session, do: {{error: UNAVAILABLE, taken: {d.choice(['true', 'false'])}}}"
    ),
    lambda d: "on: create_read_session, do: {wrong: one_huge_stream}",
    lambda d: (
        "on: insert_job, do: {"
        f"{d.choice(['status: 503', 'reset: true', 'reset: true, taken: true', 'delay: 0.3'])}}}"
    ),
    lambda d: f"on: get_job, times: {d.randint(1, 3)}, do: {{status: 503}}",
    lambda d: (
        f"on: connection, {_after(d, 1)}, do: {{reset: true, after_bytes: "
        f"{int(10 ** d.uniform(2, 6))}}}"
    ),
    lambda d: (
        f"on: connection, {_after(d, 1)}, do: {{{d.choice(['goaway', 'hang'])}: true, after_bytes: "
        f"{int(10 ** d.uniform(3, 6))}}}"
    ),
)

_SINK: tuple[Callable[[Draw], str], ...] = (
    lambda d: (
        f"on: batch, {_share(d, 0.05, 0.5)}, do: {{status: {d.choice([500, 502, 503, 504, 408])}}}"
    ),
    lambda d: (
        f"on: batch, {_share(d, 0.05, 0.4)}, do: {{status: 429, retry_after: "
        f"{d.choice(['0', '0.05', '0.1'])}}}"
    ),
    lambda d: f"on: batch, {_after(d, 8)}, do: {{status: 429, retry_after: http-date 1}}",
    # A storm: so many in a row.
    lambda d: (
        f"on: batch, {_after(d, 10)}, times: {d.randint(5, 25)}, do: {{status: "
        f"{d.choice(['429, retry_after: 0.05', '503', '503'])}}}"
    ),
    # Down for good: the run ends when its patience does.
    lambda d: f"on: batch, {_after(d, 10)}, times: always, do: {{status: 503}}",
    lambda d: f"on: batch, {_share(d, 0.1, 0.4)}, do: {{reset: true, taken: true}}",
    lambda d: f"on: batch, {_share(d, 0.1, 0.4)}, do: {{reset: true}}",
    lambda d: (
        f"on: batch, {_after(d, 6)}, do: {{hang: true, taken: {d.choice(['true', 'false'])}}}"
    ),
    lambda d: f"on: batch, {_share(d, 0.1, 0.3)}, do: {{delay: {d.uniform(0.05, 0.4):.2f}}}",
    lambda d: (
        f"on: connection, {_share(d, 0.2, 0.7)}, do: {{reset: true, after_bytes: "
        f"{int(10 ** d.uniform(0, 3.3))}}}"
    ),
    lambda d: (
        f"on: connection, {_after(d, 2)}, do: {{hang: true, after_bytes: "
        f"{int(10 ** d.uniform(0, 3.3))}}}"
    ),
)
