"""Which part of a run a process has, where several share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.model import Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Which of how many processes delivers a run together with the others.

    index: below `of`. job: what all of them have in common and no other run has; empty for a
    process that delivers the whole run alone.
    """

    index: int = 0
    of: int = 1
    job: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One of `of` equal parts, the one at `place`: of a run's streams, or of a rate limit."""

    place: int = 0
    of: int = 1

    def has(self, stream: int) -> bool:
        """Whether a stream is in this part."""
        return stream % self.of == self.place


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a run is beside this process's shard of it.

    share: the shard among those that are unfinished, which have the rate limit to share.
    elsewhere: destination -> what the other shards have committed.
    """

    share: Share = Share()
    elsewhere: Mapping[str, Counts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardState:
    """A shard of a run, for who looks on.

    holder: "host:process" of a live lease; None when nobody has it. done: every row of its
    streams is settled. counts: by destination, as committed.
    """

    index: int
    holder: str | None
    done: bool
    counts: Mapping[str, Counts]


ALL, WHOLE, ALONE = Share(), Shard(), Standing()
"""What a process has, is and sees that delivers a run by itself."""
