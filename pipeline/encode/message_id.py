r"""The messageId of a row: a 128-bit hash of its content, so that a row sent twice is recognised.

    messageId = hex(XXH3-128(payload, seed = XXH3-64(scope)))
    scope     = sync                              of a track, page or screen row with a timestamp
              = sync + "\n" + start + "\n" + sequence  of every other row, by its Window

A timestamp of the sync's `constants` is none of a row's own, and constants are part of the payload.
`payload` is the row's JSON up to the comma before `"messageId"`. The id is the same over retries,
resumes, batch boundaries and stream layouts, since none of them is part of it.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from pipeline.model import Window

DIGITS = 32  # hexadecimal, of 128 bits
PLACEHOLDER = "0" * DIGITS


def window_seed(sync: str, window: Window) -> int:
    """The seed of rows that mean something only together with when they were asked for."""
    return xxhash.xxh3_64_intdigest(f"{sync}\n{window.start}\n{window.sequence}".encode())


def event_seed(sync: str) -> int:
    """The seed of rows that carry their own time: the same event, whenever it is read."""
    return xxhash.xxh3_64_intdigest(sync.encode())


def message_ids(
    data: memoryview, starts: Sequence[int], ends: Sequence[int], seeds: int | Sequence[int]
) -> npt.NDArray[np.uint8]:
    """The ids of data[starts[i]:ends[i]], as ASCII of shape (rows, 32).

    The one loop over rows in the engine: a quarter of a microsecond each.
    """
    digest = xxhash.xxh3_128_digest
    if isinstance(seeds, int):
        hashes = [digest(data[a:b], seeds) for a, b in zip(starts, ends, strict=True)]
    else:
        hashes = [digest(data[a:b], s) for a, b, s in zip(starts, ends, seeds, strict=True)]
    return np.frombuffer(binascii.hexlify(b"".join(hashes)), dtype=np.uint8).reshape(-1, DIGITS)
