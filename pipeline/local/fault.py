"""One fault, and one rule of a plan that says when it happens. Values and counting; no I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

WRONG = frozenset(
    (
        "truncated",  # a message without its second half
        "garbled",  # a message whose rows can't be decoded
        "ended",  # a stream that ends before its last row, as if all were well
        "reordered",  # columns in another order than before
        "no_streams",  # a session that has rows and no streams
        "one_huge_stream",  # a session with one huge stream among small ones
    )
)
"""What `wrong` can be: the first three of ReadRows, the last three of CreateReadSession."""

LOSE = frozenset(("session", "table"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is to go wrong with one call.

    At most one of error, status, reset, hang, wrong, lose and goaway is set; none of them: a mere
    delay or slowness.

    error: a gRPC status by name, with `message`.
    delay: seconds to wait first.
    hang: never answer, and keep the connection.
    reset: cut the connection without an answer.
    wrong: an answer that looks well and is not; see WRONG.
    lose: the session, or the table that it reads too, is gone from now on.
    goaway: of a connection: HTTP/2's GOAWAY; what runs on it may end, what begins goes elsewhere.
    status: an HTTP status, with `body` as it is (None: the server's own for the status).
    retry_after: seconds until the call may come again; retry_date: said as an HTTP date.
    after_messages: let so many messages of a stream pass before.
    after_bytes: of a connection: let so many bytes to the client pass before.
    bytes_per_second: of a connection: from then on no faster than this.
    taken: the work is done all the same, and only the answer is wrong.
    """

    error: str | None = None
    message: str = ""
    delay: float = 0.0
    hang: bool = False
    reset: bool = False
    status: int | None = None
    retry_after: float | None = None
    retry_date: bool = False
    body: str | None = None
    after_messages: int | None = None
    taken: bool = False
    wrong: str | None = None
    lose: str | None = None
    goaway: bool = False
    after_bytes: int = 0
    bytes_per_second: float | None = None


@dataclass(slots=True, kw_only=True)
class Rule:
    """One rule with its counters; `seen` counts matching calls, `fired` the faults given."""

    on: str
    fault: Fault
    after: int = 0
    times: int | None = 1
    every: int | None = None
    share: float | None = None
    seed: int = 0
    seen: int = 0
    fired: int = 0
    draws: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draws = random.Random(self.seed)  # noqa: S311  # reproducible on purpose

    def due(self) -> bool:
        """Count a matching call; whether it is one to fail."""
        self.seen += 1
        position = self.seen - self.after
        if position < 1:
            return False
        if self.every is not None:
            chosen = position % self.every == 0
        elif self.share is not None:
            chosen = self.draws.random() < self.share
        else:
            chosen = True
        return chosen and (self.times is None or self.fired < self.times)
