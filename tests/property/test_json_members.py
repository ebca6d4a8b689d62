"""Members taken out of JSON objects by name, against `json` row by row."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.encode.members import without_members

# Few letters, so that names meet; and all that means something to JSON or to a pattern.
NAMES = st.text('ab"\\,:{}[] \t\x01é😀.*', max_size=3)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), NAMES),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=5)
SPACING = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : "), ("\n,\t", "\r:")])


@settings(max_examples=1_000, deadline=None)
@given(
    objects=st.lists(st.tuples(OBJECTS, SPACING, st.booleans()), max_size=5),
    names=st.sets(NAMES, min_size=1, max_size=4),
    before=st.integers(0, 2),
)
def test_only_the_named_members_go(
    *, objects: list[tuple[dict[str, Any], tuple[str, str], bool]], names: set[str], before: int
) -> None:
    inside = [
        json.dumps(one, separators=spacing, ensure_ascii=escaped)[1:-1] or None
        for one, spacing, escaped in objects
    ]
    column = pa.array([*["gone"] * before, *inside, None], pa.string()).slice(before)
    found = without_members(column, names).to_pylist()
    assert found[-1] is None
    for (one, _, _), text, given_ in zip(objects, found, inside, strict=False):
        kept = {name: value for name, value in one.items() if name not in names}
        assert json.loads("{" + (text or "") + "}") == kept
        assert list(json.loads("{" + (text or "") + "}")) == list(kept)
        assert bool(text) == bool(kept)
        if kept == one:  # not a byte of it changes
            assert text == given_
        alone = without_members(pa.array([given_], pa.string()), names).to_pylist()
        assert alone == [text]
