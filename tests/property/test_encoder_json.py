"""Text that should be JSON, judged a column at a time, against `json` row by row."""

from __future__ import annotations

import math
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from value_oracle import is_json, one_line
from value_strategies import json_texts

from pipeline.encode import claims
from pipeline.encode.claims import Claim, proven
from pipeline.encode.validity import Validity

# Of these a row can be made that is whole only together with its neighbours.
FRAGMENTS = ["", ",", "1", "1,2", "[", "]", "[1", "2]", "{", "}", '{"a":', '"', '"a', 'b"', "\\",
             "],[", '","', '"],["', "1],[2", "null", " ", "\n", "tru", "e"]  # fmt: skip
PARTS = st.lists(st.sampled_from(FRAGMENTS), max_size=4).map("".join)
TEXTS = st.lists(st.one_of(st.none(), PARTS, json_texts()), max_size=12)


def judged(texts: list[str | None], before: int = 0) -> tuple[list[str | None], set[int]]:
    """The proven text, and the rows that are refused."""
    column = pa.array([*['{"junk'] * before, *texts], pa.string()).slice(before)
    validity = Validity(len(texts))
    text = proven(Claim.JSON, column, validity).to_pylist()
    reasons = validity.reasons
    return text, set() if reasons is None else set(reasons.nonzero()[0].tolist())


@settings(max_examples=2_000, deadline=None)
@given(texts=TEXTS, before=st.integers(0, 2))
@example(texts=["[1", "2]"], before=0)
@example(texts=["1,2", "[3", "4]"], before=0)  # as many items as there should be
@example(texts=['"a', 'b"', '"'], before=0)
def test_a_row_is_refused_if_and_only_if_it_is_not_json_by_itself(
    texts: list[str | None], before: int
) -> None:
    found, refused = judged(texts, before)
    assert refused == {
        row for row, text in enumerate(texts) if text is not None and not is_json(text)
    }
    assert found == [
        None if text is None or row in refused else one_line(text) for row, text in enumerate(texts)
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=4), st.data())
def test_not_even_who_knows_the_marker_by_half_can_fake_a_row(
    texts: list[str], data: st.DataObject
) -> None:
    half = claims._MARKER[:16]
    row = data.draw(st.integers(0, len(texts) - 1))
    texts[row] = f'1,"{half}","{half}",2'
    assert row in judged(texts)[1]


@pytest.mark.parametrize("bad", [[], [0], [999], [500], [3, 4], [10, 400, 990]])
def test_rows_at_fault_cost_a_few_parses_each_and_the_others_none(bad: list[int]) -> None:
    rows = 1_000
    texts: list[str | None] = ['{"a": [1, 2]}'] * rows
    for row in bad:
        texts[row] = '{"a": [1, 2}'
    with patch.object(claims.orjson, "loads", wraps=claims.orjson.loads) as loads:
        assert judged(texts)[1] == set(bad)
    assert loads.call_count <= 1 + len(bad) * (2 * math.ceil(math.log2(rows)) + 1)
