"""Payloads in files: for dry runs, for other tools, and to see what would be sent.

A file of lines that grows (send/file_transport.py), or a folder of whole files, one per Batch
(send/part_files.py).
"""

from __future__ import annotations

from pipeline.model import Action, Answer, Body, Envelope, Limits, Request, Verdict

# Large enough for any row worth a line, small enough for a few of them in memory.
LIMITS = Limits(payload_bytes=4_000_000, batch_bytes=4_100_000, batch_rows=10_000)
# So many of the smallest payloads are some 100 MB: `file_bytes` ends a file long before.
_PART_ROWS = 1_000_000


def part_limits(file_bytes: int) -> Limits:
    """Of a folder whose files have at most so many bytes of lines."""
    return Limits(
        payload_bytes=min(LIMITS.payload_bytes, file_bytes - 1),  # and its line end
        batch_bytes=file_bytes,
        batch_rows=_PART_ROWS,
    )


class File:
    """A `Destination` that accepts everything.

    limits: in a dry run, those of the destination it stands for.
    """

    def __init__(self, *, name: str, limits: Limits = LIMITS) -> None:
        self._name, self._limits = name, limits

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    @property
    def limits(self) -> Limits:
        """In bytes."""
        return self._limits

    @property
    def envelope(self) -> Envelope:
        """Lines."""
        return Envelope(prefix=b"", separator=b"\n", suffix=b"\n")

    def request(self, body: Body) -> Request:
        """Lines to append."""
        return Request(url="", headers={}, body=body)

    def judge(self, answer: Answer, now: float) -> Verdict:  # noqa: ARG002 - the port's shape
        """Written is delivered; what can't be written is raised by the transport."""
        return Verdict(action=Action.DELIVERED)

    def warnings(self, payload: bytes, now: float) -> tuple[str, ...]:  # noqa: ARG002 - see above
        """A file has no opinion."""
        return ()
