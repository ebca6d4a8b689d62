"""How a Sender ends a run: the errors, with what happened, where, and the remedy. Pure."""

from __future__ import annotations

from pipeline.errors import CredentialsError, DestinationError, DestinationRefused, TooManyRejected
from pipeline.model import Verdict
from pipeline.send.cut import Part, rows


class Endings:
    """The errors of one destination of one sync. deadline: `retry_deadline`, in seconds."""

    def __init__(self, sync: str, destination: str, deadline: float) -> None:
        self._sync, self._destination = sync, destination
        self._where = f"sync {sync}: {destination}"
        self._deadline = f"`retry_deadline` ({deadline:g} s)"

    def refused(self, verdict: Verdict) -> DestinationError | CredentialsError:
        """It refuses whoever asks, or whatever is asked."""
        if verdict.credentials:
            return CredentialsError(
                f"{self._where} refuses the credentials ({verdict.reason}). Check the key and the "
                f"region in destinations.{self._destination}. Nothing was dropped."
            )
        return DestinationRefused(
            f"{self._where} refuses the request as such ({verdict.reason}). Check the URL that "
            f"destinations.{self._destination} says or stands for. Nothing was dropped."
        )

    def refused_all(self, reason: str) -> TooManyRejected:
        """Every row that was tried alone is refused."""
        return TooManyRejected(
            f"{self._where} refuses every row tried ({reason}), which is no single row's fault. "
            f"Nothing was dropped. See what it says with `retl preview {self._sync}` and one row "
            "sent by hand."
        )

    def outage(self, verdict: Verdict) -> DestinationError:
        """It has been failing for everybody until the deadline."""
        asked = f", and asks for {verdict.after:g} s" if verdict.after else ""
        return DestinationError(
            f"{self._where} fails ({verdict.reason}{asked}), and {self._deadline} is over. Nothing "
            "was lost: run again when it is back, and the run goes on where it stopped."
        )

    def stuck(self, part: Part, verdict: Verdict) -> DestinationError:
        """It fails on these rows until the deadline, while others get through."""
        first = part[0]
        row, stream = first.payloads.row(first.start), first.payloads.span.stream
        which = f"row {row}" if rows(part) == 1 else f"{rows(part):,} rows from row {row} on"
        return DestinationError(
            f"{self._where} goes on failing ({verdict.reason}) on {which} of stream {stream} while "
            f"other rows get through, and {self._deadline} is over. Nothing was lost: a failure is "
            "no refusal, so the rows are kept to be sent again. Correct or leave out the rows in "
            "the query, or ask the destination's support; then run again."
        )
