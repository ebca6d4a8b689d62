"""Where the encoder's time goes and what it holds, by timing its parts from outside.

The clocks cost about a microsecond per call, so the shares are of the profiled run only; figures
and ratios are taken without them.
"""

from __future__ import annotations

import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pyarrow as pa

from pipeline.encode import columns, encoder, objects
from pipeline.encode.columns import Converter
from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import Literal, Member, Tree
from pipeline.encode.pieces import Pieces
from pipeline.encode.together import Together
from pipeline.encode.validity import Validity
from pipeline.model import Payloads

Run = Callable[[], list[Payloads]]

_POOLS: list[pa.MemoryPool] = []  # a pool has to outlive its buffers

_PARTS: list[tuple[Any, str, str]] = [
    (columns, "escape", "escape"),
    (encoder, "message_ids", "ids: hash"),
    (encoder, "_stamp", "ids: stamp"),
    (encoder, "_empty_to_null", "validity"),
    (Validity, "check_sizes", "validity"),
    (Validity, "refuse", "validity"),
    (objects, "proven", "validity"),
    (Pieces, "nullable", "nulls"),
    (Pieces, "optional", "nulls"),
    (Pieces, "join", "join"),
    (Together, "texts", "columns together"),
]


def shares(encode: CallEncoder, schema: pa.Schema, run: Run, repeats: int) -> dict[str, float]:
    """Stage -> its share of the time, what it calls left out; columns by their Arrow type."""
    clock = _Clock()
    with _clocks(clock, encode, schema):
        for _ in range(repeats):
            clock.timed("rest", run)()
    whole = sum(clock.seconds.values())
    ordered = sorted(clock.seconds.items(), key=lambda item: -item[1])
    return {stage: seconds / whole for stage, seconds in ordered}


def memory(batch: pa.RecordBatch, encode: Callable[[], Payloads]) -> dict[str, float]:
    """Peaks while one batch is encoded, as multiples of its bytes, payloads included."""
    kept = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(kept)
    _POOLS.append(pool)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        payloads = encode()
        python = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(kept)
    size = batch.nbytes
    return {
        "batch_bytes": size,
        "json": len(payloads.data) / size,
        "arrow_peak": pool.max_memory() / size,
        "numpy_and_python_peak": python / size,
    }


class _Clock:
    """Seconds by stage; the time of a stage inside another counts for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - start
                self.seconds[stage] += took - self._inner.pop()
                self._inner[-1] += took

        return call


@contextmanager
def _clocks(clock: _Clock, encode: CallEncoder, schema: pa.Schema) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, name, stage in _PARTS:
            timed = clock.timed(stage, getattr(owner, name))
            stack.enter_context(patch.object(owner, name, timed))
        layout = encode._layout  # noqa: SLF001 - it has no business outside but here
        places: list[Member | Tree] = [*layout.fields.values(), *layout.objects.values()]
        for place in places:
            for column in _members(place):
                kind = str(schema.field(column.column).type).partition("<")[0].partition("(")[0]
                timed = clock.timed(f"column: {kind}", column.converter.convert)
                timed_one = Converter(timed, column.converter.ends)
                stack.enter_context(patch.object(column, "converter", timed_one))
        yield


def _members(place: Member | Literal | Tree) -> Iterator[Member]:
    if isinstance(place, Member):
        yield place
    if not isinstance(place, Tree):
        return
    if place.spread is not None:
        yield place.spread
    for member in place.members:
        yield from _members(member)
