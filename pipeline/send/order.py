"""Which rows may leave now, so that no user's rows overtake each other. Pure and clock-free.

A user is closed while a request with rows of his is out, and until the rows that came meanwhile
have left too. Rows of a closed user wait in his mail; rows of all others are taken as they came,
whatever Batch they are of, until a request is full. A request takes a user's rows in order, and as
none of them is out elsewhere, none can be overtaken. What a Batch is to the ledger stays the same:
it is done when its last row is, whichever requests they went in.
Python touches a row by itself only when it has to wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.model import (
    Batch,
    DeadLetter,
    Delivery,
    Envelope,
    Limits,
    Payloads,
    Slice,
    Span,
    Verdict,
)
from pipeline.send.cut import Part, cut, refuse, rows

# A place is the number of a Batch and the row in it, as one integer: places ascend as rows came.
_BITS = 32
_ROW = (1 << _BITS) - 1
Indices = npt.NDArray[np.int64]


class Order:
    """The rows of the Batches on their way to one destination. Batches come in the rows' order.

    limits, envelope: what a request must not exceed, as for the packer.
    """

    def __init__(self, limits: Limits, envelope: Envelope) -> None:
        # The last payload's separator is not sent: its byte is free.
        frame = len(envelope.prefix) + len(envelope.suffix) - len(envelope.separator)
        self._most_bytes, self._most_rows = limits.batch_bytes - frame, limits.batch_rows
        self._batches: dict[int, _Held] = {}
        self._by_span: dict[tuple[int, int], _Held] = {}
        self._number, self._likely_rows = 0, 1
        self._arrived: deque[_Held] = deque()  # with rows that were not looked at yet
        self._closed: set[int] = set()
        self._mail: dict[int, list[int]] = {}  # places; older than what was not looked at
        self._free: deque[int] = deque()  # users who have mail and nothing out

    def arrive(self, batch: Batch) -> None:
        """Rows to deliver, after all those before."""
        held = _Held(self._number, batch)
        self._number += 1
        # A full Batch tells how many rows fill a request: what does not fit is picked in vain.
        self._likely_rows = min(self._most_rows, self._most_bytes * batch.rows // batch.nbytes + 1)
        self._batches[held.number] = self._by_span[held.key] = held
        self._arrived.append(held)

    @property
    def is_waiting(self) -> bool:
        """Whether there may be rows to take. After a `take` that found none there are none."""
        return bool(self._free or self._arrived)

    def take(self) -> Part:
        """The payloads of the next request; none when all that there is has to wait."""
        picked, nbytes = self._take_mail()
        count = sum(len(indices) for _, indices in picked)
        while self._arrived and count < self._most_rows:
            held = self._arrived[0]
            found, full = self._look(held, self._most_rows - count, self._most_bytes - nbytes)
            if len(found):
                picked.append((held, found))
                count += len(found)
                nbytes += int(held.sizes[found].sum())
            if full:
                break
            self._arrived.popleft()
        for held, indices in picked:
            self._closed.update(held.users[indices].tolist())
        return tuple(piece for held, indices in picked for piece in held.gather(indices))

    def settle(
        self, part: Part, left: Iterable[Part] = (), refusal: Verdict | None = None
    ) -> list[Delivery]:
        """Rows that were taken are delivered, or refused; the Batches that are done by it.

        left: what of the same request is not settled: its users stay closed.
        """
        users: Iterable[int] = users_of(part).tolist()
        for other in left:
            users = set(users).difference(users_of(other).tolist())
        mailed = self._mail.keys() & users if self._mail else ()
        self._closed.difference_update(users)
        self._closed.update(mailed)
        self._free.extend(mailed)
        done = []
        for piece in part:
            span = piece.payloads.span
            held = self._by_span[span.stream, span.first]
            held.left -= piece.rows
            if refusal is not None:
                held.rejections += refuse((piece,), refusal.reason, refusal.message)
            if not held.left:
                del self._batches[held.number], self._by_span[held.key]
                rejections = sorted(held.rejections, key=lambda letter: letter.row)
                done.append(Delivery(batch=held.batch, rejections=tuple(rejections)))
        return done

    def _take_mail(self) -> tuple[list[tuple[_Held, Indices]], int]:
        """Rows that have waited, of users who are free now, and their bytes."""
        places: list[int] = []
        while self._free and len(places) < self._likely_rows:
            user = self._free.popleft()
            mail = self._mail[user]
            room = self._likely_rows - len(places)
            places += mail[:room]
            if len(mail) > room:
                del mail[:room]
            else:
                del self._mail[user]
        picked, sizes = self._found(places)
        until = np.cumsum(sizes)
        fits = int(np.searchsorted(until, self._most_bytes, side="right"))
        if fits < len(until):
            picked, late = _parted(picked, fits)
            self._put_back(picked, late)
        return picked, int(until[fits - 1]) if fits else 0

    def _found(self, places: list[int]) -> tuple[list[tuple[_Held, Indices]], Indices]:
        """The rows in these places, in their order, Batch by Batch; their sizes."""
        if not places:
            return [], np.zeros(0, dtype=np.int64)
        ascending = np.sort(np.array(places, dtype=np.int64))
        numbers, indices = ascending >> _BITS, ascending & _ROW
        edges = np.flatnonzero(np.diff(numbers)) + 1
        firsts = [0, *edges.tolist()]
        found = [
            (self._batches[int(numbers[first])], part)
            for first, part in zip(firsts, np.split(indices, edges), strict=True)
        ]
        return found, np.concatenate([held.sizes[part] for held, part in found])

    def _put_back(
        self, picked: Sequence[tuple[_Held, Indices]], late: Sequence[tuple[_Held, Indices]]
    ) -> None:
        """Rows that did not fit become the first of their users' mail again."""
        taken: set[int] = set()
        for held, indices in picked:
            taken.update(held.users[indices].tolist())
        again: dict[int, list[int]] = {}
        for held, indices in late:
            for user, place in zip(held.users[indices].tolist(), held.places(indices), strict=True):
                again.setdefault(user, []).append(place)
        for user, places in again.items():
            self._mail[user] = places + self._mail.get(user, [])
        # Nothing of theirs is out, so nothing that lands would free them.
        self._free.extendleft(user for user in again if user not in taken)

    def _look(self, held: _Held, most_rows: int, most_bytes: int) -> tuple[Indices, bool]:
        """The next rows of a Batch that may leave; and whether no more of them fit.

        Those of closed users go to their mail.
        """
        users = held.users[held.looked :].tolist()
        if self._closed.isdisjoint(users):
            free = np.arange(held.looked, len(held.users))
            closed = free[:0]
        else:
            mask = np.fromiter(map(self._closed.__contains__, users), np.bool_, len(users))
            free, closed = (np.flatnonzero(flags) + held.looked for flags in (~mask, mask))
        until = np.cumsum(held.sizes[free])
        fits = min(int(np.searchsorted(until, most_bytes, side="right")), most_rows)
        full = fits < len(free)
        stop = int(free[fits]) if full else len(held.users)
        closed = closed[: int(np.searchsorted(closed, stop))]
        for user, place in zip(held.users[closed].tolist(), held.places(closed), strict=True):
            self._mail.setdefault(user, []).append(place)
        held.looked = stop
        return free[:fits], full


class _Held:
    """A Batch whose rows are not all settled. looked: how many of them were looked at."""

    def __init__(self, number: int, batch: Batch) -> None:
        self.number, self.batch = number, batch
        self.key = batch.span.stream, batch.span.first
        self.users = users_of(batch.slices)
        offsets = [piece.payloads.offsets[piece.start : piece.stop + 1] for piece in batch.slices]
        self.sizes = np.concatenate([np.diff(each) for each in offsets])
        self.looked, self.left = 0, len(self.users)
        self.rejections: list[DeadLetter] = []

    def places(self, indices: Indices) -> list[int]:
        """Where these rows are."""
        places: list[int] = (indices + (self.number << _BITS)).tolist()
        return places

    def gather(self, indices: Indices) -> Iterator[Slice]:
        """These rows, which ascend, as payloads of their own."""
        first = 0
        for piece in self.batch.slices:
            low, high = np.searchsorted(indices, (first, first + piece.rows))
            if low < high:
                yield _own(piece, indices[low:high] - first, self.batch.span)
            first += piece.rows


def _own(piece: Slice, indices: Indices, span: Span) -> Slice:
    """These rows of a slice; copied where they do not stand side by side.

    span: of their Batch, by which it is found when they are settled.
    """
    whole, at = piece.payloads, indices + piece.start
    if int(at[-1]) - int(at[0]) + 1 == len(at):
        data, offsets = whole.data, whole.offsets[at[0] : at[-1] + 2]
    else:
        column = pa.Array.from_buffers(
            pa.large_binary(),
            len(whole),
            [None, pa.py_buffer(whole.offsets), pa.py_buffer(whole.data)],
        ).take(pa.array(at))
        data = memoryview(column.buffers()[2])
        offsets = np.frombuffer(column.buffers()[1], dtype=np.int64)[: len(at) + 1]
    users = None if whole.users is None else whole.users[at]
    rows = at + whole.span.first if whole.rows is None else whole.rows[at]
    own = Payloads(data=data, offsets=offsets, span=span, rows=rows, users=users)
    return Slice(own, 0, len(at))


def _parted(
    picked: Sequence[tuple[_Held, Indices]], count: int
) -> tuple[list[tuple[_Held, Indices]], list[tuple[_Held, Indices]]]:
    """The first `count` rows, and the others."""
    first, other = [], []
    for held, indices in picked:
        if count > 0:
            first.append((held, indices[:count]))
        if count < len(indices):
            other.append((held, indices[max(count, 0) :]))
        count -= len(indices)
    return first, other


def users_of(part: Part) -> npt.NDArray[np.uint64]:
    """Whom each row is about; where nobody says, all are about one."""
    found = [
        np.zeros(piece.rows, dtype=np.uint64)
        if piece.payloads.users is None
        else piece.payloads.users[piece.start : piece.stop]
        for piece in part
    ]
    return found[0] if len(found) == 1 else np.concatenate(found)


def without(part: Part, user: int) -> tuple[Part, Part]:
    """The rows of all others, and his."""
    mask = users_of(part) == user
    edges = (np.flatnonzero(np.diff(mask)) + 1).tolist()
    stretches, his = cut(part, *edges), bool(mask[0])
    mine, others = stretches[not his :: 2], stretches[his::2]
    return (
        tuple(piece for stretch in others for piece in stretch),
        tuple(piece for stretch in mine for piece in stretch),
    )


def first_rows(part: Part, count: int) -> list[int]:
    """`count` rows before each of which no row of the same user stands unless it is among them.

    Spread over the part where there are as many users.
    """
    _, firsts = np.unique(users_of(part), return_index=True)
    if len(firsts) < count:
        return list(range(min(count, rows(part))))
    firsts = np.sort(firsts)
    return [int(firsts[index * (len(firsts) - 1) // (count - 1)]) for index in range(count)]
