"""How many streams a read session is asked for. Pure."""

from __future__ import annotations

from typing import NamedTuple

# The most that a session has (cloud.google.com/bigquery/docs/reference/storage/rpc).
MOST = 1_000
# More streams than are read at a time, so that the last ones end close together.
_PER_READER = 4
# Streams differ in length by several times; of so many the sums are alike.
_PER_SHARD = 8


class StreamCount(NamedTuple):
    """most: 1 keeps the order of the rows. least: a wish; 0: none. There may be fewer of both."""

    most: int
    least: int = 0


IN_ORDER = StreamCount(1)
"""All rows through one stream."""


def stream_count(readers: int, shards: int = 1) -> StreamCount:
    """What suits so many shards, each of which reads so many streams at a time."""
    if shards == 1:
        return IN_ORDER if readers == 1 else StreamCount(readers * _PER_READER)
    most = shards * max(readers * _PER_READER, _PER_SHARD)
    return StreamCount(min(MOST, most), min(MOST, shards * _PER_SHARD))
