"""Defects that the engine does not have: each must be found, or the harness proves nothing."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

_SLOW = 2.0


def _forget_requests() -> None:
    """Each ninth request is taken for delivered and never sent."""
    from pipeline.model import Answer
    from pipeline.send.transport import HttpTransport

    numbers, post = itertools.count(1), HttpTransport.post

    async def posting(self: Any, request: Any) -> Answer:
        if next(numbers) % 9 == 0:
            return Answer(status=200, body=b"{}")
        return await post(self, request)

    HttpTransport.post = posting  # type: ignore[method-assign]  # a defect is put in


def _commit_early() -> None:
    """Checkpoints reach to the last row that is settled, over those before it that are not."""
    from pipeline.checkpoint.ledger import Ledger

    settle, checkpoints = Ledger.settle, Ledger.checkpoints
    ahead: dict[int, int] = {}

    def settling(self: Any, span: Any, dead: int = 0) -> None:
        settle(self, span, dead)
        ahead[span.stream] = max(ahead.get(span.stream, 0), span.end)

    def covering(self: Any) -> dict[int, int]:
        return {
            stream: max(rows, ahead.get(stream, 0)) for stream, rows in checkpoints(self).items()
        }

    Ledger.settle, Ledger.checkpoints = settling, covering  # type: ignore[method-assign]


def _spoil() -> None:
    """A byte of some request bodies is another."""
    from pipeline.model import Request
    from pipeline.send.transport import HttpTransport

    post = HttpTransport.post

    async def posting(self: Any, request: Request) -> Any:
        return await post(self, replace(request, body=bytes(request.body).replace(b"Zo", b"Za", 1)))

    HttpTransport.post = posting  # type: ignore[method-assign]


def _close_early() -> None:
    """The first shard that ends closes the run, whatever the others have left to do.

    All but one are slow: where they end together, it does no harm, and there is nothing to find.
    """
    from pipeline.checkpoint import shards
    from pipeline.send.transport import HttpTransport

    if os.environ.get("JOB_COMPLETION_INDEX") != "0":
        post = HttpTransport.post

        async def posting(self: Any, request: Any) -> Any:
            await asyncio.sleep(_SLOW)
            return await post(self, request)

        HttpTransport.post = posting  # type: ignore[method-assign]

    of_all = shards.shards_of

    def of_those_done(connection: Any, run: str) -> Any:
        rows = of_all(connection, run)
        return [each for each in rows if each.done] or rows

    shards.shards_of = of_those_done
    shards._is_short = lambda *_: False


SABOTAGES: Mapping[str, Callable[[], None]] = {
    "forget": _forget_requests,
    "early": _commit_early,
    "spoil": _spoil,
    "close": _close_early,
}
