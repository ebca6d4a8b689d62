from __future__ import annotations

import numpy as np

from pipeline.encode.packer import Packer
from pipeline.model import Batch, Envelope, Limits, Payloads, Span
from pipeline.run.budget import ByteBudget
from pipeline.run.holding import Holding

LIMITS = Limits(payload_bytes=10, batch_bytes=100, batch_rows=4)
ENVELOPE = Envelope(prefix=b"", separator=b",", suffix=b"")


def payloads(rows: int, first: int = 0) -> Payloads:
    return Payloads(
        data=memoryview(b"12345," * rows),
        offsets=np.arange(rows + 1, dtype=np.int64) * 6,
        span=Span(stream=0, first=first, rows=max(rows, 1)),
    )


async def test_room_is_given_back_when_the_last_row_is_settled() -> None:
    budget = ByteBudget(10**6)
    holding = Holding(budget)
    packer = Packer(LIMITS, ENVELOPE, stream=0, first=0)
    whole, later = payloads(10), payloads(3, first=10)

    await holding.hold(whole)
    first, second = packer.add(whole)
    assert packer.waiting == 2
    holding.packed(whole, packer.waiting)
    held = budget.used
    assert held > len(whole.data)
    for batch in (first, second):
        holding.sent(batch)
    assert budget.used > held
    holding.settled(second)
    assert budget.used > held
    holding.settled(first)
    assert budget.used == 0

    await holding.hold(later)
    batches: list[Batch] = [*packer.add(later)]
    holding.packed(later, packer.waiting)
    batches += packer.flush()
    assert [batch.rows for batch in batches] == [4, 1]
    # Rows copied from the first payloads hold nothing of it, and take room once they are sent.
    assert all(piece.payloads is not whole for batch in batches for piece in batch.slices)
    before = budget.used
    for batch in batches:
        holding.sent(batch)
    assert budget.used > before
    for batch in batches:
        holding.settled(batch)
    assert budget.used == 0


async def test_payloads_without_rows_hold_nothing() -> None:
    budget = ByteBudget(10)
    holding = Holding(budget)
    none = payloads(0)
    await holding.hold(none)
    holding.packed(none, 0)
    assert budget.used == 0
    budget.take(30)
    assert budget.used == 30
