"""The way to a destination, and the bounds of a lane on it, as wired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.ports import Deliverer, Destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A destination and the way to it, as wired.

    begin: hears a run's id before it delivers. share: hears which of how many equal parts of the
    rate limit is this process's, and may hear it again at any time.
    """

    destination: Destination
    deliverer: Deliverer
    begin: Callable[[str], None] = lambda _run: None
    share: Callable[[int, int], None] = lambda _place, _of: None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """buffer_bytes: encoded and not settled. streams: read at a time. drain: seconds.

    tolerates: whether so many dead letters of so many rows are still all right.
    """

    buffer_bytes: int
    streams: int
    drain: float
    tolerates: Callable[[int, int], bool]
