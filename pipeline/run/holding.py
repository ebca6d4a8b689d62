"""Which encoded payloads are still needed by a Batch, and the room they take in the budget.

A Batch is slices of Payloads: each Payloads stays in memory, whole, until the last of its rows is
settled. So its room is given back then, and not by the share of each Batch.
"""

from __future__ import annotations

from pipeline.model import Batch, Payloads
from pipeline.run.budget import ByteBudget

# What a Payloads costs beside its bytes: batches, tasks, a few values. Bounds tiny ones too.
_OVERHEAD = 16_384


class Holding:
    """The Payloads of one lane that are on their way."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        # By identity: the bytes held, and the rows not settled yet.
        self._held: dict[int, tuple[int, int]] = {}

    async def hold(self, payloads: Payloads) -> None:
        """Wait for room for all of it."""
        nbytes = len(payloads.data) + _OVERHEAD
        await self._budget.acquire(nbytes)
        self._held[id(payloads)] = nbytes, len(payloads)

    def packed(self, payloads: Payloads, tail: int) -> None:
        """Its last `tail` rows were copied elsewhere and need it no more."""
        self._forget(payloads, tail)

    def settled(self, batch: Batch) -> None:
        """The batch needs its payloads no more."""
        for piece in batch.slices:
            if id(piece.payloads) in self._held:  # not a copied tail
                self._forget(piece.payloads, piece.rows)

    def _forget(self, payloads: Payloads, rows: int) -> None:
        nbytes, left = self._held[id(payloads)]
        if left > rows:
            self._held[id(payloads)] = nbytes, left - rows
        else:
            del self._held[id(payloads)]
            self._budget.release(nbytes)
