"""What APIs that take runs of payloads by HTTP share: the base of the destinations beside it.

A destination sets where to send, how a body looks and what is accepted; what an answer means is
the table of verdicts.py, unless it says otherwise.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

import orjson

from pipeline.destination.verdicts import judge
from pipeline.model import Answer, Body, Envelope, Limits, Request, Verdict

BATCH = Envelope(prefix=b'{"batch":[', separator=b",", suffix=b"]}")
"""`{"batch":[...]}`: what Customer.io, Segment and RudderStack take."""

_LONGEST_MESSAGE = 500  # characters of an answer that are kept with a dead letter
# Where the usual APIs put their words: {"meta":{"errors":[...]}}, {"message":...}, {"error":...}.
_WORDS = ("message", "error", "errors", "detail", "title")


class BatchApi:
    """A `Destination` that POSTs to one URL.

    headers: may hold secrets. encoding: identity or gzip.
    """

    def __init__(
        self,
        *,
        name: str,
        url: str,
        headers: Mapping[str, str],
        limits: Limits,
        envelope: Envelope = BATCH,
        encoding: str = "identity",
    ) -> None:
        self._name, self._url, self._headers = name, url, headers
        self._limits, self._envelope, self._encoding = limits, envelope, encoding

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    @property
    def limits(self) -> Limits:
        """In bytes of UTF-8."""
        return self._limits

    @property
    def envelope(self) -> Envelope:
        """What stands around and between the payloads."""
        return self._envelope

    def request(self, body: Body) -> Request:
        """A POST of the body."""
        return Request(url=self._url, headers=self._headers, body=body, encoding=self._encoding)

    def judge(self, answer: Answer, now: float) -> Verdict:
        """See verdicts.py."""
        return judge(answer, now, words(answer))

    def warnings(self, payload: bytes, now: float) -> tuple[str, ...]:  # noqa: ARG002 - the port's shape
        """Nothing is known of what it does with payloads."""
        return ()


def basic(user: str) -> str:
    """The Authorization header of a user without a password: how most APIs take a key."""
    return "Basic " + base64.b64encode(f"{user}:".encode()).decode()


def words(answer: Answer) -> str:
    """What an answer that is no success says, for dead letters; a bounded length of it."""
    return _text(answer.body)[:_LONGEST_MESSAGE] if answer.status >= 400 else ""


def _text(body: bytes) -> str:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    if isinstance(said, dict):
        meta = said.get("meta")
        inner = {**said, **meta} if isinstance(meta, dict) else said
        found = next((inner[key] for key in _WORDS if inner.get(key)), None)
        if isinstance(found, str):
            return found
        if isinstance(found, list):
            return "; ".join(str(one) for one in found)
    return body.decode("utf-8", "replace")
