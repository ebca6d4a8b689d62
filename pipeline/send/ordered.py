"""Delivers Batches so that no user's rows are out twice at once or overtake each other.

What may leave is decided by `order.py`, and as late as can be: when the Sender could send at once.
So rows that had to wait leave together, in as few requests as can be. Within a request the rows
stand in order, and where it has to be cut, its parts go one after another, first rows first. A row
that the destination can't answer for holds back its user's later rows and nobody else's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from pipeline.model import Action, Batch, Counts, Delivery, Verdict
from pipeline.ports import Destination
from pipeline.send.cut import Part, cut, halves, halves_by_bytes, rows
from pipeline.send.order import Order, first_rows, users_of, without
from pipeline.send.sender import PROBES, Sender
from pipeline.send.trouble import Trouble


class Ordered:
    """A `Deliverer` around a Sender, for Batches that come in the order of their rows.

    Batches that don't say whom they are about (dead letters sent again) go one after another.
    The requests are tasks of their own, since one may hold rows of several Batches. They end with
    the last delivery, be it done, failed or cancelled; what comes after that begins anew.
    """

    def __init__(self, sender: Sender, destination: Destination) -> None:
        self._sender, self._destination = sender, destination
        self._order = self._new_order()
        self._deliveries: dict[int, asyncio.Future[Delivery]] = {}
        self._requests: set[asyncio.Task[None]] = set()
        self._asking = False
        self._error: Exception | None = None
        self._one_by_one = asyncio.Lock()

    @property
    def sent(self) -> Counts:
        """See `pipeline.ports.Deliverer`."""
        return self._sender.sent

    async def deliver(self, batch: Batch) -> Delivery:
        """See `pipeline.ports.Deliverer`. Its place is that of the call among all calls."""
        if any(piece.payloads.users is None for piece in batch.slices):
            async with self._one_by_one:
                return await self._sender.deliver(batch)
        if self._error is not None:
            raise self._error
        delivery: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        self._deliveries[id(batch)] = delivery
        self._order.arrive(batch)
        self._ask()
        try:
            return await delivery
        finally:
            del self._deliveries[id(batch)]
            if not self._deliveries:
                await self._end()

    def _new_order(self) -> Order:
        return Order(self._destination.limits, self._destination.envelope)

    async def _end(self) -> None:
        requests = list(self._requests)
        self._order, self._asking, self._error = self._new_order(), False, None
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)

    def _ask(self) -> None:
        """See to it that somebody sends what may leave: one at a time asks for it."""
        if self._order.is_waiting and not self._asking:
            self._asking = True
            self._start(self._send)

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Whatever ends the run, ends it for all who wait."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self._error = error
            for delivery in self._deliveries.values():
                if not delivery.done():
                    delivery.set_exception(error)
                    delivery.exception()  # whoever is cancelled meanwhile never sees it

    async def _send(self) -> None:
        try:
            await self._sender.ready()
        finally:
            self._asking = False
        part = self._order.take()
        self._ask()
        if part:
            # Where it holds rows of every user, nothing else can leave before it is answered.
            trouble = self._sender.trouble(alone=True)
            await self._settle(deque(self._sender.stretches(part)), trouble)

    async def _settle(self, todo: deque[Part], trouble: Trouble) -> None:
        """Deliver or reject every row of a request, part by part where it can't be done at once."""
        probed = False
        while todo:
            part = todo.popleft()
            verdict = await self._sender.decide(part, trouble, may_leave=True)
            if verdict is None and rows(part) == 1:  # 1. It fails where others get through.
                self._leave(part, todo, trouble)
            elif verdict is None:  # 2. Some of its rows may.
                todo.extendleft(reversed(halves(part)))
            elif verdict.action in {Action.DELIVERED, Action.REJECT} or rows(part) == 1:  # 3.
                self._done(part, verdict, todo)
            elif verdict.by_size:  # 4.
                todo.extendleft(reversed(halves_by_bytes(part)))
            elif probed or rows(part) <= PROBES:  # 5. Some of its rows are at fault.
                todo.extendleft(reversed(halves(part)))
            else:  # 6. All of them may be.
                await self._probe(part, todo, trouble)
                probed = True

    async def _probe(self, part: Part, todo: deque[Part], trouble: Trouble) -> None:
        """Send a few rows alone; raises when all of them are refused. The rest is to do.

        They are rows that overtake none of their users'.
        """
        places = first_rows(part, PROBES)
        pieces = cut(part, *[place for row in places for place in (row, row + 1)])
        singles, between = deque(pieces[1::2]), [piece for piece in pieces[::2] if rows(piece)]
        todo.extendleft(reversed(between))
        refused: deque[tuple[Part, Verdict]] = deque()
        while singles:
            verdict = await self._sender.decide(singles[0], trouble, may_leave=True)
            if verdict is None:  # it tells nothing; what is to do with it, is decided elsewhere
                break
            single = singles.popleft()
            if verdict.action is Action.DELIVERED:
                self._done(single, verdict, [*singles, *todo, *(one for one, _ in refused)])
            else:
                refused.append((single, verdict))
        if len(refused) == len(places):
            raise self._sender.endings.refused_all(refused[0][1].reason)
        todo.extendleft(reversed(singles))
        while refused:
            single, verdict = refused.popleft()
            self._done(single, verdict, [*todo, *(one for one, _ in refused)])

    def _leave(self, single: Part, todo: deque[Part], trouble: Trouble) -> None:
        """Go on without this row's user; his rows go their own way, one request at a time."""
        user = int(users_of(single)[0])
        split = [without(part, user) for part in todo]
        todo.clear()
        todo.extend(others for others, _ in split if others)
        later = deque(his for _, his in split if his)
        self._start(partial(self._persist, single, later, trouble.apart()))

    async def _persist(self, single: Part, later: deque[Part], trouble: Trouble) -> None:
        """Send a row until there is an answer, and then what it held back."""
        verdict = await self._sender.decide(single, trouble, may_leave=False)
        if verdict is not None:  # as ever, where a row may not be left
            self._done(single, verdict, later)
        await self._settle(later, trouble)

    def _done(self, part: Part, verdict: Verdict, left: Iterable[Part]) -> None:
        """It is delivered or refused; left: what is to do still of the same request."""
        refused = verdict.action is not Action.DELIVERED
        for delivery in self._order.settle(part, left, verdict if refused else None):
            waiting = self._deliveries.get(id(delivery.batch))
            if waiting is not None and not waiting.done():
                waiting.set_result(delivery)
        self._ask()
