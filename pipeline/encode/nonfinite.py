"""NaN and infinities: JSON has none, so they are sent as null, and counted here."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.scalars import fixed_values


def may_hold_nonfinite(kind: pa.DataType) -> bool:
    """Whether values of the type are FLOAT64, or have FLOAT64 somewhere inside."""
    if pa.types.is_floating(kind):
        return True
    if not pa.types.is_nested(kind):
        return False
    return any(may_hold_nonfinite(kind.field(index).type) for index in range(kind.num_fields))


def count_nonfinite(column: pa.Array) -> int:
    """How many NaN and infinities a column holds, at any depth."""
    kind = column.type
    if pa.types.is_floating(kind):
        if (
            pa.types.is_float64(kind)
            and len(column)
            and np.isfinite(fixed_values(column, np.float64)).all()
        ):
            return 0
        finite = pc.sum(pc.is_finite(column)).as_py() or 0
        return int(len(column) - column.null_count - finite)
    if pa.types.is_struct(kind):
        return sum(count_nonfinite(child) for child in column.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return count_nonfinite(column.flatten())
    return 0
