"""Batches over HTTP by our Sender, against the same bytes posted by a bare aiohttp loop.

    python benchmarks/send.py              1 to 256 in flight at 0, 50 and 200 ms, a few minutes
    python benchmarks/send.py --turns 25   more turns, for a machine that others use too

- The server has a process and a core of its own and does nothing but read and answer; the client
  has the other core. Each batch is 480 kB of JSON, 1,170 rows.
- `sender` takes packed Batches as the run does: envelope, permit, limiter, circuit, post, verdict,
  events. There is no ledger. `bare` posts bodies that are ready, as many at a time, and looks at
  nothing but the status: the most that aiohttp does on this machine.
- With gzip, both compress in a thread, with the same library at the same level. TLS is what every
  destination beyond this machine speaks; plain HTTP is here to show what is ours.
- They take turns, so that a noisy machine slows both; a ratio is the median over the turns.
- `adaptive` starts at 4 in flight and has to find out that it may have 64.
- `least` is our transport behind a semaphore, with one event and one verdict a request: what is
  left of the bare loop's rate for whoever counts what it sends, and looks at what comes back.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import numpy as np
import trustme
from _harness import report
from isal import isal_zlib

from pipeline.cli.loop import run_async
from pipeline.destination.customerio import Customerio
from pipeline.events import Attempted, Event
from pipeline.model import Action, Batch, Payloads, Slice, Span
from pipeline.send.concurrency import Adaptive, Fixed
from pipeline.send.limiter import Limiter
from pipeline.send.retry import RetryPolicy
from pipeline.send.sender import Sender
from pipeline.send.transport import HttpTransport, Timeouts

FLYING, LATENCIES = (1, 4, 16, 64, 256), (0.0, 0.05, 0.2)
ROWS, ROW_BYTES, KINDS, BATCHES = 1_170, 410, 8, 256
# Kind, in flight, latency.
CELLS = (
    *(("tls", flying, 0.0) for flying in FLYING),
    *(("tls", 16, 0.05), ("tls", 64, 0.05), ("tls", 256, 0.2)),
    *(("plain", flying, latency) for latency in LATENCIES for flying in FLYING),
    *(("gzip", 16, 0.0), ("gzip", 64, 0.05)),
)
LEAST = ((16, 0.0), (256, 0.05))
MOST = 64  # as `max_concurrency` is by default
SECONDS = 0.3  # about, of a turn
REQUESTS_PER_SECOND = 900  # about, of one core


@dataclass(frozen=True)
class Turn:
    """What one turn took. cpu: of the client, in seconds."""

    requests: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


class Server:
    """The sink beside us. ca_file: who vouches for it."""

    def __init__(self, process: subprocess.Popen[str], ca_file: Path) -> None:
        self._process, self.ca_file = process, ca_file
        plain, tls = self._said().split()
        self._urls = {True: f"https://localhost:{tls}/v1", False: f"http://127.0.0.1:{plain}/v1"}

    def url(self, kind: str) -> str:
        """Where to send to."""
        return self._urls[kind == "tls"]

    def answers_after(self, seconds: float) -> None:
        """Set its latency."""
        assert self._process.stdin is not None  # noqa: S101 - asked for below
        print(seconds, file=self._process.stdin, flush=True)
        self._said()

    def _said(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - asked for below
        return self._process.stdout.readline()


@contextmanager
def serving() -> Iterator[Server]:
    """The sink, in a process of its own."""
    authority, pipe = trustme.CA(), subprocess.PIPE
    with TemporaryDirectory() as folder:
        ca_file, certificate = Path(folder, "ca.pem"), Path(folder, "server.pem")
        authority.cert_pem.write_to_path(ca_file)
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        script = str(Path(__file__).with_name("_send_server.py"))
        command = [sys.executable, script, str(certificate)]
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            yield Server(process, ca_file)


def made_batches() -> list[Batch]:
    """Of rows that gzip as users do: words, numbers and ids."""
    random = np.random.default_rng(7)
    words = [f"word{index}" for index in range(500)]
    found = []
    for number in range(KINDS):
        rows = []
        for row in range(ROWS):
            text = " ".join(words[index] for index in random.integers(0, 500, 60))
            start = f'{{"type":"identify","userId":"{number * ROWS + row}","traits":{{"about":"'
            rows.append(f'{start}{text:.{ROW_BYTES - len(start) - 4}}"}}}},'.encode())
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        span = Span(stream=0, first=number * ROWS, rows=ROWS)
        nbytes = int(offsets[-1])
        # As in a run, no batch is in the processor's cache any more when its turn comes: for that
        # there are copies, so that all of them together are larger than it.
        for _ in range(BATCHES // KINDS):
            payloads = Payloads(data=memoryview(b"".join(rows)), offsets=offsets, span=span)
            found.append(Batch(slices=(Slice(payloads, 0, ROWS),), span=span, nbytes=nbytes))
    return found


Deliver = Callable[[int], Awaitable[None]]
"""Deliver batch number N."""


async def all_of(requests: int, workers: int, deliver: Deliver) -> None:
    """So many deliveries, by workers that each do one at a time."""
    numbers = iter(range(requests))

    async def work() -> None:
        for number in numbers:
            await deliver(number)

    await asyncio.gather(*[work() for _ in range(min(workers, requests))])


class Bench:
    """Both contenders, over one server."""

    def __init__(self, server: Server, batches: list[Batch]) -> None:
        self._server, self._batches = server, batches
        self.seen = 0

    def _note(self, event: Event) -> None:
        del event
        self.seen += 1

    async def sender(self, requests: int, concurrency: Fixed, most: int, kind: str) -> Turn:
        """Our Sender and HttpTransport. most: connections."""
        transport = self._transport(most)
        one = Sender(
            sync="bench",
            destination=self._destination(kind),
            transport=transport,
            limiter=Limiter(requests=100_000.0),
            retry=RetryPolicy(deadline=10.0),
            concurrency=concurrency,
            observer=self._note,
        )

        async def deliver(number: int) -> None:
            await one.deliver(self._batches[number % BATCHES])

        turn = await timed(requests, all_of(requests, 2 * most, deliver))
        await transport.close()
        if one.sent.requests != requests or one.sent.retries:
            raise RuntimeError(f"{one.sent} of {requests}")
        return turn

    async def least(self, requests: int, flying: int) -> Turn:
        """Our transport, and as little as can be instead of a Sender."""
        transport, destination = self._transport(flying), self._destination("plain")
        permits = asyncio.Semaphore(flying)

        async def deliver(number: int) -> None:
            batch = self._batches[number % BATCHES]
            async with permits:
                body = destination.envelope.pieces([piece.view for piece in batch.slices])
                started = time.monotonic()
                answer = await transport.post(destination.request(body))
                self._note(
                    Attempted(
                        sync="bench",
                        destination="cio",
                        status=answer.status,
                        error="",
                        seconds=time.monotonic() - started,
                        rows=ROWS,
                        nbytes=len(body),
                        encoding="identity",
                    )
                )
                if destination.judge(answer, time.time()).action is not Action.DELIVERED:
                    raise RuntimeError(f"{answer.status}")

        turn = await timed(requests, all_of(requests, 2 * flying, deliver))
        await transport.close()
        return turn

    def _transport(self, connections: int) -> HttpTransport:
        return HttpTransport(
            connections=connections,
            timeouts=Timeouts(connect=10, read=30, total=30),
            user_agent="retl-bench",
            ca_file=self._server.ca_file,
        )

    def _destination(self, kind: str) -> Customerio:
        encoding = "gzip" if kind == "gzip" else "identity"
        url = self._server.url(kind)
        return Customerio(name="cio", api_key="key", endpoint=url, encoding=encoding)

    async def bare(self, requests: int, flying: int, kind: str) -> Turn:
        """Nothing but aiohttp."""
        destination = Customerio(name="cio", api_key="key", endpoint=self._server.url(kind))
        views = [[piece.view for piece in batch.slices] for batch in self._batches]
        made = [destination.request(destination.envelope.wrap(view)) for view in views]
        headers = {**made[0].headers, "Content-Type": "application/json"}
        if kind == "gzip":
            headers["Content-Encoding"] = "gzip"
        context = ssl.create_default_context(cafile=self._server.ca_file)
        connector = aiohttp.TCPConnector(limit=flying, ssl=context)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

            async def deliver(number: int) -> None:
                request = made[number % BATCHES]
                body = bytes(request.body)
                if kind == "gzip":
                    body = await asyncio.to_thread(packed, body)
                async with session.post(request.url, data=body) as response:
                    await response.read()
                    if response.status != 200:
                        raise RuntimeError(f"{response.status}")

            return await timed(requests, all_of(requests, flying, deliver))


def packed(body: bytes) -> bytes:
    """As the transport does it."""
    compressor = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
    return bytes(compressor.compress(body) + compressor.flush())


async def timed(requests: int, work: Awaitable[None]) -> Turn:
    """Wall and CPU time of it."""
    started, cpu = time.perf_counter(), time.process_time()
    await work
    return Turn(requests, time.perf_counter() - started, time.process_time() - cpu)


def requests_for(flying: int, latency: float) -> int:
    """As many as take about SECONDS, and three rounds at least."""
    rate = min(REQUESTS_PER_SECOND, flying / (latency + 0.001))
    return max(3 * flying, int(rate * SECONDS), 4)


@dataclass
class Cell:
    """One line of the table."""

    ours: list[Turn]
    theirs: list[Turn]

    @property
    def ratio(self) -> float:
        """Requests per second, ours to theirs."""
        return statistics.median(
            one.rate / other.rate for one, other in zip(self.ours, self.theirs, strict=True)
        )

    def figures(self, batch_bytes: int) -> dict[str, float]:
        """Medians over the turns."""

        def median(pick: Callable[[Turn], float], turns: list[Turn]) -> float:
            return round(statistics.median(map(pick, turns)), 3)

        return {
            "requests_per_second": median(lambda turn: turn.rate, self.ours),
            "bare_requests_per_second": median(lambda turn: turn.rate, self.theirs),
            "mb_per_second": median(lambda turn: turn.rate * batch_bytes / 1e6, self.ours),
            "cpu_ms_per_batch": median(lambda turn: turn.cpu / turn.requests * 1e3, self.ours),
            "bare_cpu_ms_per_batch": median(
                lambda turn: turn.cpu / turn.requests * 1e3, self.theirs
            ),
        }


async def compare(bench: Bench, flying: int, latency: float, turns: int, kind: str) -> Cell:
    """The same number in flight, by both in turn."""
    requests = requests_for(flying, latency)
    cell = Cell([], [])
    for _ in range(turns):
        cell.ours.append(await bench.sender(requests, Fixed(flying), flying, kind))
        cell.theirs.append(await bench.bare(requests, flying, kind))
    return cell


async def adaptive(bench: Bench, latency: float) -> tuple[Turn, Turn, int]:
    """From a cold start: adaptive, the fixed number that it may reach, and what it reached."""
    requests = 3 * requests_for(MOST, latency)
    limit = Adaptive(MOST)
    ours = await bench.sender(requests, limit, MOST, "plain")
    return ours, await bench.sender(requests, Fixed(MOST), MOST, "plain"), limit.limit


async def least(bench: Bench, flying: int, latency: float, turns: int) -> float:
    """The share of the bare loop's requests/s that is left for as little as can be."""
    requests = requests_for(flying, latency)
    found = []
    for _ in range(turns):
        least = await bench.least(requests, flying)
        found.append(least.rate / (await bench.bare(requests, flying, "plain")).rate)
    return statistics.median(found)


async def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns
    figures: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    with serving() as server:
        batches = made_batches()
        bench = Bench(server, batches)
        await compare(bench, 4, 0.0, 1, "plain")  # warm
        size = batches[0].nbytes
        print(f"{size:,} bytes a batch; requests/s, MB/s and CPU ms a batch; `bare` in brackets")
        for kind, flying, latency in CELLS:
            server.answers_after(latency)
            cell = await compare(bench, flying, latency, turns, kind)
            name = f"{kind}_{latency * 1e3:.0f}ms_{flying}"
            found = figures[name] = cell.figures(size)
            ratios[name] = round(cell.ratio, 3)
            print(
                f"{kind:5} {latency * 1e3:3.0f} ms {flying:3} in flight: "
                f"{found['requests_per_second']:7.1f} ({found['bare_requests_per_second']:7.1f}) "
                f"{found['mb_per_second']:6.1f} MB/s "
                f"{found['cpu_ms_per_batch']:.2f} ({found['bare_cpu_ms_per_batch']:.2f}) ms "
                f"ratio {cell.ratio:.2f}"
            )
        for latency in LATENCIES:
            server.answers_after(latency)
            ours, fixed, reached = await adaptive(bench, latency)
            name = f"adaptive_{latency * 1e3:.0f}ms"
            figures[name] = {"requests_per_second": round(ours.rate, 1), "reached": reached}
            ratios[name] = round(ours.rate / fixed.rate, 3)
            print(
                f"adaptive {latency * 1e3:3.0f} ms: {ours.rate:7.1f}, {reached} in flight; "
                f"fixed {MOST}: {fixed.rate:7.1f}; ratio {ours.rate / fixed.rate:.2f}"
            )
        for flying, latency in LEAST:
            server.answers_after(latency)
            ratio = await least(bench, flying, latency, turns)
            ratios[f"least_{latency * 1e3:.0f}ms_{flying}"] = round(ratio, 3)
            print(f"least {latency * 1e3:5.0f} ms {flying:3} in flight: ratio {ratio:.2f}")
    goals = {}
    for about, kind in (("over TLS", "tls"), ("plain", "plain")):
        name = min((name for name in ratios if name.startswith(kind)), key=lambda one: ratios[one])
        goals[f"{about}: requests/s to the bare loop's, at worst ({name})"] = ratios[name]
    report("send", figures, ratios, {name: (ratio, ">=", 0.9) for name, ratio in goals.items()})


if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    run_async(main())
