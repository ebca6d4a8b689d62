"""Delivers each Batch as one file of a folder: what object stores take, which can't append.

A file is named by its run and the first row in it. A run that goes on packs the same rows into the
same Batches, so it replaces what it had written with the same rows, and nothing is there twice.
A Batch is delivered when its file is complete. Rate limits are not for files.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from secrets import token_hex

import pyarrow as pa

from pipeline.errors import DestinationError, DestinationRefused
from pipeline.events import Attempted, Event, Retried
from pipeline.model import Action, Batch, Counts, Delivery, Slice, Verdict
from pipeline.ports import Observer
from pipeline.send.file_transport import PASSING, REMEDIES
from pipeline.send.folder import Folder
from pipeline.send.retry import RetryPolicy

_AT_ONCE = 4  # files being written; more take memory, and object stores cut large ones up anyway
_LONGEST_WORDS = 200
# What S3 says of who we are; other stores raise PermissionError.
_DENIED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "INVALID_CLIENT")
_FAILED = Verdict(action=Action.RETRY)


class PartFiles:
    """A `Deliverer`. write: the content of a file. suffix: of its name, with the dot.

    shown: the folder in messages, without secrets. in_order: one file after another.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        sync: str,
        destination: str,
        shown: str,
        write: Callable[[Sequence[Slice]], bytes | pa.Buffer],
        suffix: str,
        retry: RetryPolicy,
        observer: Observer,
        in_order: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._folder, self._write, self._suffix = folder, write, suffix
        self._sync, self._destination, self._shown = sync, destination, shown
        self._retry, self._observer = retry, observer
        self._clock, self._sleep, self._uniform = clock, sleep, uniform
        self._room = asyncio.Semaphore(1 if in_order else _AT_ONCE)
        self._sent = Counts()
        self._run = ""

    @property
    def sent(self) -> Counts:
        """See `pipeline.ports.Deliverer`."""
        return self._sent

    def begin(self, run: str) -> None:
        """The run that files are named by; before the first delivery.

        Without it each file gets a random name: rows of no run, sent again by hand.
        """
        self._run = run

    async def deliver(self, batch: Batch) -> Delivery:
        """See `pipeline.ports.Deliverer`. Raises DestinationError, DestinationRefused."""
        first = batch.slices[0]
        # By the first payload: where invalid rows before it were counted may differ next time.
        row = first.payloads.row(first.start)
        place = f"{self._run}-{batch.span.stream}-{row}" if self._run else token_hex(8)
        name = f"part-{place}{self._suffix}"
        async with self._room:
            data = await asyncio.to_thread(self._write, batch.slices)
            await self._put(name, data, batch.rows)
        return Delivery(batch=batch)

    async def _put(self, name: str, data: bytes | pa.Buffer, rows: int) -> None:
        """Until it is there. What fails may pass, but not for longer than the deadline."""
        failed_at: float | None = None
        retries = 0
        while True:
            started = self._clock()
            error = await asyncio.to_thread(self._try, name, data)
            self._attempted(error, self._clock() - started, rows, len(data))
            if error is None:
                return
            ending = self._ending(error)
            if ending is not None:
                raise ending from error
            now = self._clock()
            failed_at = now if failed_at is None else failed_at
            wait = self._retry.wait(retries, _FAILED, self._uniform)
            if now + wait > failed_at + self._retry.deadline:
                raise DestinationError(
                    f"sync {self._sync}: {self._destination} fails ({_words(error)}), and "
                    f"`retry_deadline` ({self._retry.deadline:g} s) is over. Nothing was lost: run "
                    "again when it is back, and the run goes on where it stopped."
                ) from error
            retries += 1
            self._sent += Counts(retries=1)
            self._tell(Retried, reason="write")
            await self._sleep(wait)

    def _try(self, name: str, data: bytes | pa.Buffer) -> OSError | ValueError | None:
        """Its fault as a value."""
        try:
            self._folder.put(name, data)
        except (OSError, ValueError) as error:
            return error
        return None

    def _ending(self, error: OSError | ValueError) -> DestinationError | None:
        """The error of a fault that trying again does not help."""
        number = error.errno if isinstance(error, OSError) else None
        known = number in REMEDIES or isinstance(error, FileNotFoundError | NotADirectoryError)
        denied = any(word in str(error) for word in _DENIED)
        if isinstance(error, OSError) and not (known or denied):
            return None
        kind = DestinationError if number in PASSING else DestinationRefused
        remedy = REMEDIES.get(number or 0, "Set that right")
        if denied:
            remedy = "Check the credentials of the store"
        return kind(
            f"sync {self._sync}: {self._shown} can't be written: {_words(error)}. {remedy}, or "
            f"change `path` in destinations.{self._destination}, and run again. Nothing was lost."
        )

    def _attempted(self, error: Exception | None, seconds: float, rows: int, nbytes: int) -> None:
        self._sent += Counts(requests=1, bytes_sent=nbytes)
        self._tell(
            Attempted,
            status=0 if error else 200,
            error="write" if error else "",
            seconds=seconds,
            rows=rows,
            nbytes=nbytes,
            encoding="identity",
        )

    def _tell(self, kind: Callable[..., Event], **fields: object) -> None:
        self._observer(kind(sync=self._sync, destination=self._destination, **fields))


def _words(error: Exception) -> str:
    """Of the system, which names files and never holds rows; bounded."""
    said = error.strerror if isinstance(error, OSError) else None
    return (said or str(error) or type(error).__name__).splitlines()[0][:_LONGEST_WORDS]
