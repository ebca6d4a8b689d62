"""What is done with dead letters once a run has kept them: looked at, replayed, forgotten."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from pipeline.model import DeadLetter, Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterRecord:
    """A dead letter as kept. at: Unix seconds.

    kept: how much of its payload. sealed: the payload is encrypted, with a key that is not at
    hand; it is empty then.
    """

    id: int
    run: str
    sync: str
    destination: str
    at: float
    letter: DeadLetter
    kept: Kept = Kept.FULL
    sealed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which dead letters are meant: those that all of it fits. since: Unix seconds."""

    sync: str | None = None
    run: str | None = None
    destination: str | None = None
    reason: str | None = None
    since: float | None = None


EVERY_LETTER = LetterFilter()


class ReasonCount(NamedTuple):
    """How many dead letters have one reason."""

    sync: str
    destination: str
    reason: str
    letters: int


class Obstacle(StrEnum):
    """Why a dead letter can't be replayed. Of several, the first here counts."""

    INVALID = "invalid"  # we refused it: its payload can't be what the API takes
    NOT_KEPT = "not_kept"  # of its payload only ids are kept, or nothing
    PENDING = "pending"  # its run is unfinished and will send the row again by itself
    SEALED = "encrypted"  # its payload is encrypted, and there is no key
    TOO_LARGE = "too_large"  # for what the destination takes now
    NO_DESTINATION = "no_destination"  # the configuration has it no more


class ReplayCount(NamedTuple):
    """How many dead letters can be replayed (no obstacle), or can't."""

    sync: str
    destination: str
    obstacle: Obstacle | None
    letters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenReplay:
    """A replay under the lease of its sync."""

    sync: str
    epoch: int


class LetterStore(Protocol):
    """What is done with dead letters afterwards. Blocking; each method is one transaction.

    Raises StateError.
    """

    def dead_letters(
        self, which: LetterFilter = EVERY_LETTER, limit: int = 50
    ) -> Sequence[DeadLetterRecord]:
        """Newest first."""

    def dead_letter(self, number: int) -> DeadLetterRecord | None:
        """One by its id; None when there is none."""

    def dead_letter_summary(self, which: LetterFilter = EVERY_LETTER) -> Sequence[ReasonCount]:
        """By sync, destination and reason, in this order."""

    def dead_letter_page(
        self, which: LetterFilter, *, after: int, rows: int = 1_000, replayable: bool = False
    ) -> Sequence[DeadLetterRecord]:
        """The next of them by ascending id, of a bounded size in bytes; empty at the end.

        after: the last id seen, 0 at first. replayable: those without an Obstacle only.
        """

    def clear_dead_letters(self, which: LetterFilter = EVERY_LETTER) -> int:
        """Forget them; how many. In several transactions, so that a run can write meanwhile."""

    def replay_counts(self, which: LetterFilter = EVERY_LETTER) -> Sequence[ReplayCount]:
        """By sync, destination and obstacle, in this order."""

    def begin_replay(self, sync: str) -> OpenReplay:
        """Take the sync's lease: no run and no other replay of it until `end_replay`.

        Raises LeaseError while it is held.
        """

    def settle_replay(
        self,
        replay: OpenReplay,
        delivered: Collection[int],
        rejected: Mapping[int, DeadLetter],
    ) -> None:
        """Forget the ids delivered, note why others were rejected again; renew the lease.

        Raises LeaseError when the lease was lost meanwhile; then nothing is changed.
        """

    def end_replay(self, replay: OpenReplay) -> None:
        """Release the lease, if it is still held."""
