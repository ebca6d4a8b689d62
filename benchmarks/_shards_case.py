"""What the model of shards is given, with its assumptions, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is modelled. Rows and requests are counts, times seconds, rates per second.

    sizes: rows of each stream. rate: of requests, of all shards together. encode: rows that one
    process encodes. stream: rows that BigQuery gives of one stream. opening: until the first of
    them comes. latency: of an answer, 30 % around it. buffer: rows encoded and not settled. reads:
    streams read at a time. deaths: at what time which shard's process dies. drained: by SIGTERM.
    start: from a pod's creation to its join.
    """

    shards: int = 1
    sizes: tuple[int, ...] = ()
    rate: float | None = 1_000.0
    encode: float = 500_000.0
    stream: float = 200_000.0
    opening: float = 0.1
    latency: float = 0.1
    permits: int = 64
    request_rows: int = 1_400
    buffer: int = 64_000_000 // 343
    reads: int = 4
    deaths: tuple[tuple[float, int], ...] = ()
    drained: bool = False
    drain: float = 25.0
    start: float = 5.0
    seed: int = 7

    @property
    def rows(self) -> int:
        """All there are."""
        return sum(self.sizes)

    @property
    def capacity(self) -> float:
        """Rows per second that the narrowest limit lets through."""
        in_flight = self.permits * self.request_rows / self.latency
        reading = self.reads * self.stream
        own = self.shards * min(self.encode, in_flight, reading)
        return min(own, self.rate * self.request_rows) if self.rate else own


@dataclass(slots=True)
class Outcomes:
    """What came of a case. ended: shard -> when. joined: when a process did, again after a death.

    sent: rows that left, those sent again included. widest: the most requests in any second,
    wherever it begins. transactions: of the store, and the Checkpoints that they wrote.
    """

    settled: int = 0
    sent: int = 0
    requests: int = 0
    transactions: int = 0
    checkpoints: int = 0
    widest: int = 0
    joined: list[float] = field(default_factory=list)
    ended: dict[int, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Until the last shard was done."""
        return max(self.ended.values())

    @property
    def tail(self) -> float:
        """The last shard's end over the mean of all."""
        return self.seconds * len(self.ended) / sum(self.ended.values())
