"""How many streams a read session is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.source.streams import MOST, stream_count


@pytest.mark.parametrize(
    ("readers", "shards", "count"),
    [
        (1, 1, (1, 0)),  # several would lose the order
        (4, 1, (16, 0)),
        (1, 3, (24, 24)),
        (4, 3, (48, 24)),
        (4, 64, (1000, 512)),
        (300, 1, (1200, 0)),  # as before: the service gives no more than it has
        (1, 1000, (1000, 1000)),
    ],
)
def test_streams(readers: int, shards: int, count: tuple[int, int]) -> None:
    assert stream_count(readers, shards) == count


@given(readers=st.integers(1, 1000), shards=st.integers(2, MOST))
def test_several_shards_get_eight_each_as_far_as_there_are(readers: int, shards: int) -> None:
    most, least = stream_count(readers, shards)
    assert min(MOST, 8 * shards) <= least <= most <= MOST
