"""JSON objects without some of their members, by name, over a whole column.

Where a JSON `traits` column stands beside columns of their own, these win, and the object's
member of the same name must not be sent a second time. Rows without such a member, which most
syncs have none of, stay the very text that came in; the others are written anew, one by one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.validity import Validity
from pipeline.model import Reason


def without_members(
    text: pa.StringArray,
    objects: Sequence[Mapping[str, Any]],
    names: AbstractSet[str],
    validity: Validity,
) -> pa.StringArray:
    """The objects without the members called `names`; `objects` is what `text` says.

    Numbers keep their value. A row nested too deeply to be written anew becomes null and refused.
    """
    apart = np.fromiter(map(frozenset(names).isdisjoint, objects), np.bool_, len(objects))
    if apart.all():
        return text
    both = pa.array(~apart)
    written = pa.array([_without(one, names) for one in text.filter(both).to_pylist()], pa.string())
    text = pc.replace_with_mask(text, both, written)
    validity.refuse(pc.and_(both, text.is_null()), Reason.INVALID_JSON)
    return text


def _without(text: str, names: AbstractSet[str]) -> str | None:
    # By the standard library, to which no integer is too long.
    try:
        kept = {name: value for name, value in json.loads(text).items() if name not in names}
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return None
