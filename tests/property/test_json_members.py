"""Members taken out of JSON objects by name, against `json` row by row."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.encode.claims import proven_objects
from pipeline.encode.members import without_members
from pipeline.encode.validity import Validity
from pipeline.model import Reason

# Few letters, so that names meet; and all that means something to JSON.
NAMES = st.text('ab"\\,:{}[] \t\x01é😀', max_size=3)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), NAMES).filter(
        lambda value: not isinstance(value, float) or abs(value) < float("inf")
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=5)
SPACING = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : "), ("\t,\t", " :\t")])


def without(column: pa.Array, names: set[str]) -> tuple[list[str | None], Validity]:
    validity = Validity(len(column))
    text, objects = proven_objects(column, validity)
    return without_members(text, objects, names, validity).to_pylist(), validity


@settings(max_examples=1_000, deadline=None)
@given(
    objects=st.lists(st.tuples(OBJECTS, SPACING, st.booleans()), max_size=5),
    names=st.sets(NAMES, min_size=1, max_size=4),
    before=st.integers(0, 2),
)
def test_only_the_named_members_go(
    *, objects: list[tuple[dict[str, Any], tuple[str, str], bool]], names: set[str], before: int
) -> None:
    texts = [
        json.dumps(one, separators=spacing, ensure_ascii=escaped)
        for one, spacing, escaped in objects
    ]
    column = pa.array([*["gone"] * before, *texts, None], pa.string()).slice(before)
    found, validity = without(column, names)
    assert validity.reasons is None
    assert found.pop() is None
    for (one, _, _), text, given_ in zip(objects, found, texts, strict=True):
        kept = {name: value for name, value in one.items() if name not in names}
        assert text is not None
        assert list(json.loads(text).items()) == list(kept.items())
        if kept == one:  # not a byte of it changes
            assert text == given_


def test_long_integers_keep_their_digits_and_members_given_twice_become_one() -> None:
    column = pa.array(['{"a":1,"n":123456789012345678901234567890}', '{"b":1,"a":0,"b":2}'])
    assert without(column, {"a"})[0] == ['{"n":123456789012345678901234567890}', '{"b":2}']


def test_what_is_nested_too_deeply_to_be_written_anew_costs_only_its_row() -> None:
    deep = "[" * 1_010 + "]" * 1_010
    column = pa.array(['{"a":1,"b":2}', f'{{"a":1,"b":{deep}}}', f'{{"b":{deep}}}'])
    found, validity = without(column, {"a"})
    assert found == ['{"b":2}', None, f'{{"b":{deep}}}']
    assert validity.reasons is not None
    assert validity.reasons.tolist() == [0, *validity.reasons[1:2].tolist(), 0]
    assert validity.reason(1) is Reason.INVALID_JSON
