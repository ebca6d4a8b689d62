"""What HTTP answers mean to a batch API; each destination starts from this table.

| answer                          | verdict                                             |
|---------------------------------|-----------------------------------------------------|
| 2xx                             | delivered                                           |
| 400, 422                        | split: find the rows at fault                       |
| 413                             | split by size                                       |
| 401, 403                        | halt: credentials                                   |
| other 1xx, 3xx and 4xx, 501     | halt: the endpoint                                  |
| 408, 425, 429, 5xx, no answer   | retry                                               |
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from pipeline.model import Action, Answer, Verdict

_CREDENTIALS = frozenset({401, 403})
_BAD_ROWS = frozenset({400, 422})
_PASSING = frozenset({408, 425, 429})
_TOO_LARGE, _THROTTLED, _NOT_IMPLEMENTED = 413, 429, 501
# A wish beyond an hour is a mistake, or an outage that the run's deadline should judge.
_LONGEST_WAIT = 3600.0
_DEFAULT: Mapping[str, Action] = {}
_DELIVERED = Verdict(action=Action.DELIVERED)


def judge(
    answer: Answer, now: float, message: str = "", own: Mapping[str, Action] = _DEFAULT
) -> Verdict:
    """The table. now: Unix seconds. message: the destination's words, for dead letters.

    own: a destination's own rules, by status (`409`) or class (`4xx`), which go before the table;
    a status goes before its class.
    """
    status = answer.status
    if status == 0:
        return Verdict(action=Action.RETRY, reason=answer.error or "network")
    action = _own_action(status, own) if own else _action(status)
    if action is Action.DELIVERED:
        return _DELIVERED
    if action in {Action.SPLIT, Action.REJECT}:
        by_size = action is Action.SPLIT and status == _TOO_LARGE
        reason = f"rejected_{status}"
        return Verdict(action=action, reason=reason, message=message, by_size=by_size)
    if action is Action.RETRY:
        return Verdict(
            action=action,
            reason=f"http_{status}",
            after=retry_after(answer.retry_after, now),
            throttled=status == _THROTTLED,
        )
    credentials = status in _CREDENTIALS
    return Verdict(action=Action.HALT, reason=f"http_{status}", credentials=credentials)


def _own_action(status: int, own: Mapping[str, Action]) -> Action:
    return own.get(str(status)) or own.get(f"{status // 100}xx") or _action(status)


def _action(status: int) -> Action:
    if 200 <= status < 300:
        return Action.DELIVERED
    if status in _BAD_ROWS or status == _TOO_LARGE:
        return Action.SPLIT
    if status in _PASSING or (status >= 500 and status != _NOT_IMPLEMENTED):
        return Action.RETRY
    return Action.HALT


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
