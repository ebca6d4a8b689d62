"""What HTTP answers mean to a batch API; each destination starts from this table.

| answer                          | verdict                                             |
|---------------------------------|-----------------------------------------------------|
| 2xx                             | delivered                                           |
| 400, 422                        | split: find the rows at fault                       |
| 413                             | split by size                                       |
| 401, 403                        | halt: credentials                                   |
| other 3xx and 4xx, 501          | halt: the endpoint                                  |
| 408, 425, 429, 5xx, no answer   | retry                                               |
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from pipeline.model import Action, Answer, Verdict

_CREDENTIALS = frozenset({401, 403})
_BAD_ROWS = frozenset({400, 422})
_PASSING = frozenset({408, 425, 429})
_TOO_LARGE, _THROTTLED, _NOT_IMPLEMENTED = 413, 429, 501
# A wish beyond an hour is a mistake, or an outage that the run's deadline should judge.
_LONGEST_WAIT = 3600.0


def judge(answer: Answer, now: float, message: str = "") -> Verdict:
    """The table. now: Unix seconds. message: the destination's words, for dead letters."""
    status = answer.status
    if status == 0:
        return Verdict(action=Action.RETRY, reason=answer.error or "network")
    reason = f"http_{status}"
    if 200 <= status < 300:
        return Verdict(action=Action.DELIVERED)
    if status in _BAD_ROWS:
        return Verdict(action=Action.SPLIT, reason=f"rejected_{status}", message=message)
    if status == _TOO_LARGE:
        return Verdict(
            action=Action.SPLIT, reason=f"rejected_{status}", message=message, by_size=True
        )
    if status in _PASSING or (status >= 500 and status != _NOT_IMPLEMENTED):
        return Verdict(
            action=Action.RETRY,
            reason=reason,
            after=retry_after(answer.retry_after, now),
            throttled=status == _THROTTLED,
        )
    return Verdict(action=Action.HALT, reason=reason, credentials=status in _CREDENTIALS)


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After header, which holds seconds or an HTTP date."""
    if header is None:
        return None
    text = header.strip()
    try:
        wait = float(text) if text.isascii() and text.isdigit() else _until(text, now)
    except (ValueError, OverflowError):
        return None
    return min(max(wait, 0.0), _LONGEST_WAIT)


def _until(date: str, now: float) -> float:
    return parsedate_to_datetime(date).timestamp() - now
