"""Defects that the engine does not have: each must be found, or the harness proves nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any


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


SABOTAGES: Mapping[str, Callable[[], None]] = {
    "forget": _forget_requests,
    "early": _commit_early,
    "spoil": _spoil,
}
