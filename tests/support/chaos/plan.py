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

    The call is heard before it is answered, so without a delay nobody hears an answer. Of a fleet,
    "attach" and "finish" are heard too, before the state commits them: see child.py. Anybody's
    calls count, so a process is struck while another one starts the query, or closes the run.
    """

    on: str
    count: int = 1
    delay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Life:
    """One process of `retl run`, from its start to its end.

    ending: what is done to it at `moment`: "none"; "kill" (SIGKILL); "term", "term twice";
        "pause" (SIGSTOP until another process took its lease and ended); "twin" (another process
        on its index begins beside it); "die" (SIGKILL of its own accord, around one of its
        commits: see child.py).
    child: what child.py does to the process from inside: `clock`, `disk`, `die`, `commit_every`,
        `patience`.
    environment: RETL_ variables. bigquery, sink: fault plans of the servers, in YAML.
    delay: seconds until it begins. rows: so many are issued then.
    restart: when Postgres is restarted, if ever.
    """

    ending: str = "none"
    moment: Moment = Moment(on="start")
    child: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    bigquery: str = ""
    sink: str = ""
    delay: float = 0.0
    rows: int = 0
    restart: Moment | None = None


@dataclass(frozen=True, kw_only=True)
class GivenUp:
    """When all processes of a Job are lost, so that the next Job takes its window.

    paused: they are stopped (SIGSTOP), and wake `back` seconds later; else they are killed, and
        one more is started `back` seconds later.
    """

    moment: Moment
    paused: bool
    back: float


@dataclass(frozen=True, kw_only=True)
class Job:
    """lives: of each process of the fleet, what it lives through until it completes.

    Whoever outlives them goes on without faults.
    """

    lives: tuple[tuple[Life, ...], ...] = ()
    given_up: GivenUp | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What happens under one seed.

    jobs: one for each window, and each that is given up on the way.
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
    jobs: tuple[Job, ...]


def make(seed: int, *, fleet: int = 1, postgres: bool = False) -> Plan:
    """The plan of a seed. fleet: how many processes share a run."""
    draw = random.Random(f"{seed} {fleet} {postgres}")
    call = draw.choice(["identify", "track"])
    ordered = call == "track" and draw.random() < 0.6

    def job() -> tuple[tuple[Life, ...], ...]:
        return tuple(
            tuple(
                _life(draw, ordered=ordered, postgres=postgres, fleet=fleet)
                for _ in range(_lives(draw, fleet))
            )
            for _ in range(fleet)
        )

    jobs: list[Job] = []
    for _ in range(2):
        if fleet > 1 and draw.random() < 0.4:
            jobs.append(Job(lives=job(), given_up=_given_up(draw, ordered=ordered)))
        jobs.append(Job(lives=job()))
    return Plan(
        seed=seed,
        call=call,
        # Of a fleet each has a part, and its moments have to come before the end of that.
        rows=draw.randint(900, 2_600) if fleet == 1 else draw.randint(2_500, 5_000),
        message_rows=draw.choice([40, 100, 250] if fleet == 1 else [20, 40, 100]),
        latency=draw.choice([0.0, 0.01, 0.04] if fleet == 1 else [0.02, 0.06, 0.2]),
        sinks=draw.choice([1, 1, 2]),
        spooled=draw.random() < 0.3,
        ordered=ordered,
        jobs=tuple(jobs),
    )


def _lives(draw: Draw, fleet: int) -> int:
    return draw.choice([1, 2, 2, 3, 4] if fleet == 1 else [0, 1, 1, 2, 3])


def _life(draw: Draw, *, ordered: bool, postgres: bool, fleet: int) -> Life:
    # Where two processes send at once, as around a pause, the order is what the destination
    # makes of it: a lease fences the state, not the destination.
    endings = ["kill"] * 6 + ["term"] * 2 + ["term twice", "die", "die", "none"]
    twice = ["pause", "pause"] if fleet == 1 else ["pause", "pause", "twin", "twin"]
    ending = draw.choice([*endings, *([] if ordered else twice)])
    # By nature a second, in which a small run is over.
    child: dict[str, object] = {"commit_every": draw.choice([1.0, 0.3, 0.05])}
    if postgres:
        child["commit_every"] = 0.25  # leases are short there
    if ending == "die":
        child["die"] = {"commit": draw.randint(1, 16), "before": draw.random() < 0.5}
    if fleet > 1:
        _add_shards(draw, ending, child)
    if draw.random() < 0.25:
        child["clock"] = _clock(draw)
    if not postgres and draw.random() < 0.2:
        child["disk"] = _disk(draw)
    return Life(
        ending=ending,
        moment=_moment(draw, fleet),
        child=child,
        environment=_environment(draw),
        bigquery=_some(draw, _BIGQUERY, 3),
        sink=_some(draw, _SINK, 2),
        rows=draw.choice([0, 0, draw.randint(1, 300)]),
        restart=_moment(draw, fleet) if postgres and draw.random() < 0.25 / fleet else None,
        delay=0.0 if fleet == 1 else draw.choice([0.0, 0.0, draw.uniform(0.0, 1.0)]),
    )


def _add_shards(draw: Draw, ending: str, child: dict[str, object]) -> None:
    """What goes wrong only where there are several: at the start and the end of a shared run."""
    if draw.random() < 0.3:
        child["patience"] = 0.4  # then a process on a shard that is held is started again
    if ending == "die" and draw.random() < 0.6:
        of = draw.choice(["attach", "finish", "finish", "finish"])
        child["die"] = {"commit": 1, "before": draw.random() < 0.5, "of": of}


def _given_up(draw: Draw, *, ordered: bool) -> GivenUp:
    return GivenUp(
        moment=_moment(draw, fleet=2),
        paused=not ordered and draw.random() < 0.5,
        back=draw.uniform(0.0, 5.0),
    )


def _moment(draw: Draw, fleet: int) -> Moment:
    """Mostly while rows are sent; sometimes while the query runs, or at any time at all."""
    servers = ["batch"] * 5 + ["read_rows"] * 2 + ["create_read_session", "insert_job"]
    on = draw.choice(servers if fleet == 1 else [*servers, "attach", "finish", "finish"])
    if draw.random() < 0.1:
        return Moment(on="start", delay=draw.uniform(0.0, 1.5))
    count = {
        "batch": int(10 ** draw.uniform(0, 1.3)),
        "read_rows": draw.randint(1, 5),
        **({} if fleet == 1 else {"finish": draw.randint(1, 3)}),
    }.get(on, 1)
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
