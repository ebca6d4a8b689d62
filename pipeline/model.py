"""The engine's values: frozen, slotted, keyword-only; no I/O, no clock, no behaviour but sums.

Words are those of docs/architecture.md. Rows of a stream are numbered from 0; `first` and
`rows` always count rows of the source, whatever became of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt


class Call(StrEnum):
    """The kind of API call a row becomes."""

    IDENTIFY = "identify"
    TRACK = "track"
    GROUP = "group"
    PAGE = "page"
    SCREEN = "screen"
    ALIAS = "alias"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What a query is asked for.

    start: Unix seconds at which the last completed run's query started; 0 for everything.
    sequence: 1 + how many runs of the sync have completed; tells apart two windows that
        start at the same second, and stays the same while a window is tried again.
    """

    start: int
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Rows `first` to `first + rows - 1` of one stream, named without holding them."""

    stream: int
    first: int
    rows: int

    @property
    def end(self) -> int:
        """The first row after the span."""
        return self.first + self.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A started read: what is needed to read its streams again, in another process too.

    streams: the sources' names of the streams; a stream's number is its place in here.
    schema: Arrow schema, IPC-encapsulated.
    query_started: Unix seconds, by the source's own clock, at which the query started.
    rows: how many rows there are; None when the source can't tell.
    rows_exact: whether `rows` is a count, which a complete read has to match, or an estimate.
    slot_ms: work that the query took, in milliseconds over all slots; cache_hit: it took none,
        since the source had the result of the same query from before.
    expires: Unix seconds after which the streams can't be read any more; None: never.
    details: what the source wants to find again (job id, table) or have reported.
    estimated_bytes: of all rows, uncompressed, at the source; None when it can't tell.
    columns: their order as rows are encoded, by name, where the streams have another one; payloads,
        and so message ids, must not depend on it. Empty: as in `schema`.
    """

    streams: tuple[str, ...]
    schema: bytes
    query_started: int
    rows: int | None = None
    rows_exact: bool = True
    expires: int | None = None
    bytes_processed: int = 0
    bytes_billed: int = 0
    slot_ms: int = 0
    cache_hit: bool = False
    details: Mapping[str, str] = field(default_factory=dict)
    estimated_bytes: int | None = None
    columns: tuple[str, ...] = ()


class Reason(StrEnum):
    """Why a row is invalid: refused by us before sending. Of several, the first here counts."""

    MISSING_ID = "missing_id"  # none of the ids that its call needs
    EMPTY_ID = "empty_id"  # there is an id, but it is empty text, and no other helps
    ID_TOO_LONG = "id_too_long"
    MESSAGE_ID_TOO_LONG = "message_id_too_long"
    MISSING_EVENT = "missing_event"
    MISSING_GROUP_ID = "missing_group_id"
    MISSING_PREVIOUS_ID = "missing_previous_id"
    INVALID_JSON = "invalid_json"
    INVALID_NUMBER = "invalid_number"
    PAYLOAD_TOO_LARGE = "payload_too_large"


class Kept(StrEnum):
    """How much of a dead letter's payload is kept."""

    FULL = "full"
    IDS = "ids"  # who it is about and which message it was, and nothing else
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A row that will not be delivered, and why.

    reason: a `Reason` for an invalid row, `rejected_<status>` for one the destination refused.
    message: ours, without row content; or the destination's own words, which may quote values of
        the row until a store keeps them.
    payload: the row's JSON as it was or would have been sent.
    """

    stream: int
    row: int
    reason: str
    message: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Payloads:
    """The encoded rows of one RecordBatch.

    data: UTF-8; every payload is followed by one separator byte.
    offsets: int64, one more than there are payloads: payload i and its separator are
        data[offsets[i]:offsets[i + 1]].
    span: the source rows they came from, invalid ones included.
    rows: int64, the row number of each payload; None when every row of the span is here.
    invalid: the rows of the span that became dead letters instead.
    nonfinite: how many NaN and infinities of the span were written as null.
    users: uint64, a hash of whom each payload is about; None where nobody asks for an order.
    """

    data: memoryview
    offsets: npt.NDArray[np.int64]
    span: Span
    rows: npt.NDArray[np.int64] | None = None
    invalid: tuple[DeadLetter, ...] = ()
    nonfinite: int = 0
    users: npt.NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> int:
        """The row number, in its stream, of payload `index`."""
        return self.span.first + index if self.rows is None else int(self.rows[index])


@dataclass(frozen=True, slots=True)
class Slice:
    """Payloads `start` to `stop - 1` of one Payloads."""

    payloads: Payloads
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many payloads."""
        return self.stop - self.start

    @property
    def view(self) -> memoryview:
        """Their bytes, between the first and last payload's separators, without a copy."""
        offsets = self.payloads.offsets
        return self.payloads.data[offsets[self.start] : offsets[self.stop] - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The payloads of one request, all of one stream and in its order.

    span: the source rows that are settled when this batch is; it covers invalid rows
        between the batch's own too.
    nbytes: bytes of the payloads with separators, without the envelope.
    """

    slices: tuple[Slice, ...]
    span: Span
    nbytes: int

    @property
    def rows(self) -> int:
        """How many payloads."""
        return sum(piece.rows for piece in self.slices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a destination accepts: bytes of one payload, and bytes and payloads of one request.

    requests_per_second: what it allows when the configuration sets no rate; None: any.
    id_bytes: of userId, anonymousId, groupId and previousId; None: any.
    message_id_chars: of a messageId that a column gives; None: any.
    """

    payload_bytes: int
    batch_bytes: int
    batch_rows: int
    requests_per_second: float | None = None
    id_bytes: int | None = None
    message_id_chars: int | None = None


@dataclass(frozen=True, slots=True)
class Pieces:
    """A request body as it lies in memory. `len` is in bytes; `bytes` copies it into one piece."""

    parts: tuple[memoryview | bytes, ...] = field(repr=False)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


Body: TypeAlias = bytes | Pieces
"""A request body: `bytes(body)` has it in one piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What stands around and between the payloads of a request body."""

    prefix: bytes
    separator: bytes
    suffix: bytes

    def wrap(self, views: Sequence[memoryview | bytes]) -> bytes:
        """The request body of these runs of payloads; one copy."""
        return bytes(self.pieces(views))

    def pieces(self, views: Sequence[memoryview | bytes]) -> Pieces:
        """The same without a copy."""
        parts: list[memoryview | bytes] = [self.prefix]
        for index, view in enumerate(views):
            parts += (self.separator, view) if index else (view,)
        return Pieces((*parts, self.suffix))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as a Transport sends it: never log it.

    Its repr shows no headers, which may hold secrets, no body, and no URL, which may hold a token.

    encoding: what the Transport shall do to the body: identity or gzip.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: Body = field(repr=False)
    encoding: str = "identity"
    method: str = "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: status 0 when nothing did, and then `error` says why in one word.

    retry_after, rate_limit_reset: the headers Retry-After and X-RateLimit-Reset, as they came.
    """

    status: int
    body: bytes = b""
    retry_after: str | None = None
    error: str | None = None
    rate_limit_reset: str | None = None


class Action(StrEnum):
    """What a Verdict tells the Sender to do."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REJECT = "reject"
    SPLIT = "split"
    HALT = "halt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A destination's judgement of an Answer.

    after: seconds to wait before the next try, when the destination said so.
    throttled: the destination asked us to slow down (429), as opposed to failed.
    by_size: the request was too large (413): no row is at fault yet; only with SPLIT.
    credentials: it is who we are that was refused; only with HALT.
    message: in the destination's words, which may quote the row: for dead letters only.
    """

    action: Action
    reason: str = ""
    message: str = ""
    after: float | None = None
    throttled: bool = False
    by_size: bool = False
    credentials: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The final outcome of a Batch: what was rejected; the rest was delivered."""

    batch: Batch
    rejections: tuple[DeadLetter, ...] = ()


class Result(StrEnum):
    """How a Run ended."""

    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Rows and requests of one destination in one Run, over all its resumes."""

    read: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    requests: int = 0
    retries: int = 0
    bytes_sent: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            read=self.read + other.read,
            delivered=self.delivered + other.delivered,
            dead_lettered=self.dead_lettered + other.dead_lettered,
            requests=self.requests + other.requests,
            retries=self.retries + other.retries,
            bytes_sent=self.bytes_sent + other.bytes_sent,
        )
