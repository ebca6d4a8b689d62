"""Which encoded payloads are still needed by a Batch, and the room they take in the budget.

A Batch is slices of Payloads: each Payloads stays in memory, whole, until the last of its rows is
settled. So its room is given back then, and not by the share of each Batch. Tails that were copied
take room once their Batch is sent; before that they are at most a Batch for each stream.
"""

from __future__ import annotations

from pipeline.model import Batch, Payloads
from pipeline.run.budget import ByteBudget

# What a Payloads, and a Batch on its way, cost beside their bytes. Bounds tiny ones too.
_OVERHEAD, _BATCH_OVERHEAD = 16_384, 4_096


class Holding:
    """The Payloads of one lane that are on their way."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        # By identity: the bytes held, and the rows not settled yet.
        self._held: dict[int, tuple[int, int]] = {}
        # By identity of the batch: what it costs beside the payloads that are held.
        self._sent: dict[int, int] = {}

    async def hold(self, payloads: Payloads, *, beside: int = 0) -> None:
        """Wait for room for all of it, and for `beside` more bytes that are not given back here."""
        nbytes = len(payloads.data) + _OVERHEAD
        await self._budget.acquire(nbytes + beside)
        self._held[id(payloads)] = nbytes, len(payloads)

    def packed(self, payloads: Payloads, tail: int) -> None:
        """Its last `tail` rows were copied elsewhere and need it no more."""
        self._forget(payloads, tail)

    def sent(self, batch: Batch) -> None:
        """The batch is on its way: what of it is copies takes room from now on."""
        copied = sum(
            len(piece.payloads.data)
            for piece in batch.slices
            if id(piece.payloads) not in self._held
        )
        self._sent[id(batch)] = copied + _BATCH_OVERHEAD
        self._budget.take(copied + _BATCH_OVERHEAD)

    def settled(self, batch: Batch) -> None:
        """The batch needs its payloads no more."""
        self._budget.release(self._sent.pop(id(batch)))
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
