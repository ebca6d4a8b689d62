"""Answers that look well and are not: what `wrong` in a fault plan does to messages and tables."""

from __future__ import annotations

import pyarrow as pa

from pipeline.local.fault import Fault

# Where a message says that it is Arrow's, and how it is built.
_HEAD_BYTES = 64


def by_itself(fault: Fault) -> bool:
    """Whether the fault is all there is to an answer: nothing in it has to be changed."""
    return not (fault.wrong or fault.lose)


def schema_bytes(schema: pa.Schema, fault: Fault | None) -> bytes:
    """The schema that goes with a stream's first message."""
    if fault is not None and fault.wrong == "reordered":
        schema = _from_last_to_first(schema)
    data: bytes = schema.serialize().to_pybytes()
    return data


def reordered(rows: pa.RecordBatchReader | pa.Table) -> pa.RecordBatchReader:
    """The same rows, their columns from last to first."""
    schema = _from_last_to_first(rows.schema)
    batches = rows.to_batches() if isinstance(rows, pa.Table) else rows
    return pa.RecordBatchReader.from_batches(
        schema, (batch.select(schema.names) for batch in batches)
    )


def garbled(pieces: tuple[bytes | memoryview, ...]) -> tuple[bytes | memoryview, ...]:
    """A serialized RecordBatch that can't be read as one any more."""
    whole = b"".join(pieces)
    return bytes(byte ^ 0x55 for byte in whole[:_HEAD_BYTES]), whole[_HEAD_BYTES:]


def truncated(answer: bytes) -> bytes:
    """Its first half."""
    return answer[: len(answer) // 2]


def _from_last_to_first(schema: pa.Schema) -> pa.Schema:
    return pa.schema(list(schema)[::-1], metadata=schema.metadata)
