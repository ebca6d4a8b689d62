"""The local BigQuery and Customer.io of one seed, in this process, with faults that change.

They run on the event loop that drives the seed, so that it hears of every call before the call is
answered, and may kill a process at that very moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import orjson
from chaos.plan import Moment, Plan

from pipeline.local.bigquery.proxy import Proxy
from pipeline.local.bigquery.server import Address
from pipeline.local.bigquery.server import serve as serve_bigquery
from pipeline.local.customerio.server import serve as serve_customerio
from pipeline.local.fault import Fault
from pipeline.local.faults import FaultPlan

KEY = "sk-the-secret-key"


@dataclass(eq=False)
class _Waiting:
    """Something to be done at a moment. left: calls until then."""

    moment: Moment
    act: Callable[[], None]
    left: int
    off: bool = False

    def go(self) -> None:
        if not self.off:
            self.act()

    def call_off(self) -> None:
        self.off = True


class Moments:
    """Calls to the servers, and what waits for one of them to come."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []

    def at(self, moment: Moment, act: Callable[[], None]) -> Callable[[], None]:
        """Have `act` called once, at the moment; what comes back calls it off."""
        one = _Waiting(moment, act, moment.count)
        if moment.on == "start":
            self._loop.call_later(moment.delay, one.go)
        else:
            self._waiting.append(one)
        return one.call_off

    def hear(self, on: str) -> None:
        """A call came in; any thread."""
        self._waiting = [one for one in self._waiting if not one.off]
        for one in [one for one in self._waiting if one.moment.on == on]:
            one.left -= 1
            if one.left:
                continue
            self._waiting.remove(one)
            if one.moment.delay:
                self._loop.call_soon_threadsafe(self._loop.call_later, one.moment.delay, one.go)
            else:
                one.go()


class Dial(FaultPlan):
    """A fault plan that can be another at any time. met: faults given so far, by kind."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__()
        self._hear = hear
        self._plan = FaultPlan()
        self.met: Counter[str] = Counter()

    def turn(self, text: str) -> None:
        """Follow this plan from now on, its counts at zero."""
        self._plan = FaultPlan.parse(text)

    def __bool__(self) -> bool:
        return True

    def mentions(self, on: str) -> bool:
        """Any call may be mentioned yet."""
        return bool(on)

    def next(self, on: str) -> Fault | None:
        """See `FaultPlan.next`."""
        self._hear(on)
        fault = self._plan.next(on)
        if fault is not None:
            self.met[f"{on} {_kind(fault)}"] += 1
        return fault


@dataclass
class Services:
    """What is up. sinks: (URL without /v1, record of what was accepted), by destination.

    ear: a socket on which processes tell what they do elsewhere.
    """

    moments: Moments
    bigquery: Dial
    sink: Dial
    address: Address
    ear: Path
    sinks: dict[str, tuple[str, Path]] = field(default_factory=dict)
    behind: dict[str, str] = field(default_factory=dict)

    def turn(self, bigquery: str = "", sink: str = "") -> None:
        """Change the weather; without arguments it is calm."""
        self.bigquery.turn(bigquery)
        self.sink.turn(sink)

    def met(self) -> Counter[str]:
        """Faults given so far, by kind."""
        return self.bigquery.met + self.sink.met

    async def sql(self, statement: str) -> None:
        """Run a statement in the local BigQuery."""
        url = f"{self.address.rest}/bigquery/v2/projects/local/queries"
        body = {"query": statement, "useLegacySql": False, "timeoutMs": 60_000}
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
            found = await answer.json()
        assert found.get("jobComplete"), found

    async def query_jobs(self) -> list[str]:
        """The ids of the query jobs of the sync, each time one was started."""
        url = f"{self.address.rest}/bigquery/v2/projects/local/jobs"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            found = await answer.json()
        return [
            job["jobReference"]["jobId"]
            for job in found["jobs"]
            if "retl_sync" in job["configuration"].get("labels", {})
        ]

    async def dropped(self, sink: str) -> dict[str, int]:
        """Calls that Customer.io answered with 200 and lost. Makes its record complete."""
        url = f"{self.behind[sink]}/_local/stats"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            found: dict[str, int] = orjson.loads(await answer.read())["dropped"]
        return found


@asynccontextmanager
async def services(plan: Plan, folder: Path) -> AsyncIterator[Services]:
    """The servers of a plan, calm at first."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    moments = Moments()
    # That clients vanish is no news here.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    warehouse, sink = Dial(moments.hear), Dial(moments.hear)
    address: asyncio.Future[Address] = loop.create_future()
    serving = [
        asyncio.create_task(
            serve_bigquery(
                faults=warehouse,
                message_rows=plan.message_rows,
                ready=address.set_result,
                stop=stop,
            )
        )
    ]
    proxies: list[Proxy] = []
    ear = folder / "ear"
    listener = await asyncio.start_unix_server(partial(_listen, moments.hear), ear)
    try:
        one = Services(
            moments=moments, bigquery=warehouse, sink=sink, address=await address, ear=ear
        )
        for name in ["first", "second"][: plan.sinks]:
            url: asyncio.Future[str] = loop.create_future()
            record = folder / f"{name}.ndjson"
            serving.append(
                asyncio.create_task(
                    serve_customerio(
                        keys=[KEY],
                        record=record,
                        latency=plan.latency,
                        faults=sink,
                        ready=url.set_result,
                        stop=stop,
                    )
                )
            )
            one.behind[name] = await url
            proxies.append(Proxy(sink))
            port = await proxies[-1].start("127.0.0.1", 0, int(one.behind[name].rpartition(":")[2]))
            one.sinks[name] = (f"http://127.0.0.1:{port}", record)
        yield one
    finally:
        listener.close()
        for proxy in proxies:
            await proxy.close()
        stop.set()
        await asyncio.gather(*serving)


async def _listen(
    hear: Callable[[str], None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Hear of one thing that a process is about to do, and let it; if it lives."""
    hear((await reader.readline()).decode().strip())
    with suppress(ConnectionError):
        writer.write(b"\n")
        await writer.drain()
    writer.close()


def _kind(fault: Fault) -> str:
    """A fault in a word or two."""
    if fault.error or fault.status:
        return str(fault.error or fault.status)
    words = [fault.wrong, fault.lose and f"lost {fault.lose}"]
    words += [name for name in ("reset", "hang", "goaway") if getattr(fault, name)]
    return next(filter(None, words), "delay")
