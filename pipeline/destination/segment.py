"""Segment's HTTP Tracking API, by its /batch endpoint.

Source of hosts, keys and limits: its documentation. Answers are 400 for bodies that are too large
or no JSON, and else 200, whatever is wrong with an event: see its debugger. On 429 both
Retry-After and X-RateLimit-Reset may say when to come again.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.destination.api import BatchApi, basic
from pipeline.destination.rows import ids_missing
from pipeline.destination.verdicts import retry_after
from pipeline.model import Action, Answer, Limits, Verdict

HOSTS = {"us": "https://api.segment.io/v1", "eu": "https://events.eu1.segmentapis.com/v1"}
# 32 KB an event, 500 KB and 2,500 events a batch; "KB" is taken as 1,000 bytes, the smaller
# reading, with room for what the API may count beside the body.
# A messageId has less than 100 characters.
LIMITS = Limits(payload_bytes=32_000, batch_bytes=480_000, batch_rows=2_500, message_id_chars=99)
# Larger numbers are no seconds from now but Unix seconds.
_A_YEAR, _FAR = 366 * 86_400, 1e12


class Segment(BatchApi):
    """A `Destination`. endpoint: overrides the region's host, e.g. http://127.0.0.1:8080/v1."""

    def __init__(
        self,
        *,
        name: str,
        write_key: str,
        region: str = "us",
        endpoint: str | None = None,
        encoding: str = "identity",
    ) -> None:
        super().__init__(
            name=name,
            url=(endpoint or HOSTS[region]).rstrip("/") + "/batch",
            headers={"Authorization": basic(write_key)},
            limits=LIMITS,
            encoding=encoding,
        )

    def judge(self, answer: Answer, now: float) -> Verdict:
        """See verdicts.py; X-RateLimit-Reset stands in for a missing Retry-After."""
        verdict = super().judge(answer, now)
        if verdict.action is Action.RETRY and verdict.after is None:
            return replace(verdict, after=_reset(answer.rate_limit_reset, now))
        return verdict

    def warnings(self, payload: bytes, now: float) -> tuple[str, ...]:  # noqa: ARG002 - the port's shape
        """Events without an id are answered 200 and dropped."""
        return ids_missing(payload, "Segment answers 200 and drops it")


def _reset(header: str | None, now: float) -> float | None:
    """Seconds until the limit is lifted: from a number of seconds, Unix seconds, or a date."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit() and _A_YEAR < float(text) < _FAR:
        text = str(max(0, round(float(text) - now)))
    return retry_after(text or None, now)
