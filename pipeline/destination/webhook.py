"""Any HTTP endpoint: how a request looks and what an answer means are settings.

A signature is HMAC-SHA-256 over the body as JSON, before any compression, which is what receivers
have at hand once their framework has decoded it. With a timestamp it is over
`<timestamp>.<body>`, so that neither can be replaced; each attempt is signed anew.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from pipeline.destination.api import BatchApi, words
from pipeline.destination.verdicts import judge
from pipeline.model import Action, Answer, Body, Envelope, Limits, Request, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """How requests are signed: `header: <prefix><hex digits>`.

    timestamp_header: takes the Unix seconds that are signed too; None: the body alone is signed.
    clock: Unix seconds.
    """

    secret: bytes
    header: str
    prefix: str = ""
    timestamp_header: str | None = None
    clock: Callable[[], float]

    def __repr__(self) -> str:
        return f"Signature(header={self.header!r})"

    def headers(self, body: bytes) -> dict[str, str]:
        """What goes with a body."""
        if self.timestamp_header is None:
            return {self.header: self.prefix + self._digest(body)}
        stamp = str(int(self.clock()))
        return {
            self.header: self.prefix + self._digest(f"{stamp}.".encode() + body),
            self.timestamp_header: stamp,
        }

    def _digest(self, text: bytes) -> str:
        return hmac.new(self.secret, text, sha256).hexdigest()


class Webhook(BatchApi):
    """A `Destination`. verdicts: own rules, by status (`409`) or class (`4xx`)."""

    def __init__(
        self,
        *,
        name: str,
        url: str,
        headers: Mapping[str, str],
        limits: Limits,
        envelope: Envelope,
        verdicts: Mapping[str, Action],
        method: str = "POST",
        signature: Signature | None = None,
        encoding: str = "identity",
    ) -> None:
        super().__init__(
            name=name, url=url, headers=headers, limits=limits, envelope=envelope, encoding=encoding
        )
        self._method, self._signature, self._verdicts = method, signature, verdicts

    def request(self, body: Body) -> Request:
        """The body, with its signature."""
        signed = self._signature.headers(bytes(body)) if self._signature else {}
        return Request(
            url=self._url,
            headers={**self._headers, **signed},
            body=body,
            encoding=self._encoding,
            method=self._method,
        )

    def judge(self, answer: Answer, now: float) -> Verdict:
        """By its own rules, then by verdicts.py."""
        return judge(answer, now, words(answer), self._verdicts)
