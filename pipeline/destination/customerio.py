"""Customer.io's Data Pipelines API, by its /batch endpoint.

Source of paths, keys, strict mode and limits: its published OpenAPI and official SDKs. "KB" is
not defined there: the ceilings take it as 1,000 bytes, the smaller reading.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

import orjson

from pipeline.destination.verdicts import judge
from pipeline.destination.workspace import workspace_warnings
from pipeline.model import Answer, Envelope, Limits, Request, Verdict

HOSTS = {"us": "https://cdp.customer.io/v1", "eu": "https://cdp-eu.customer.io/v1"}
# Over 32 KB a call or 500 KB a batch the API answers 200 and drops: stay under, with room for
# what the API may count beside the body. No row limit is documented; 2,500 is Segment's.
# 3,000 requests in 3 seconds are allowed, and what exceeds them may be dropped.
# Longer ids are refused by the workspace behind the pipeline, long after the 200 (Track API).
LIMITS = Limits(
    payload_bytes=32_000,
    batch_bytes=480_000,
    batch_rows=2_500,
    requests_per_second=1_000.0,
    id_bytes=150,
)
ENVELOPE = Envelope(prefix=b'{"batch":[', separator=b",", suffix=b"]}")
# Keys that name their region go as Bearer tokens, all others as the user of Basic auth.
_BEARER_KEY = re.compile(r"(?:pk|sk)_(us|eu)_")
_LONGEST_MESSAGE = 500


class Customerio:
    """A `Destination`. endpoint: overrides the region's host, e.g. http://127.0.0.1:8080/v1."""

    def __init__(
        self,
        *,
        name: str,
        api_key: str,
        region: str = "us",
        endpoint: str | None = None,
        encoding: str = "identity",
    ) -> None:
        bearer = _BEARER_KEY.match(api_key)
        base = endpoint or HOSTS[bearer[1] if bearer else region]
        self._name, self._encoding = name, encoding
        self._url = base.rstrip("/") + "/batch"
        token = base64.b64encode(f"{api_key}:".encode()).decode()
        self._headers: Mapping[str, str] = {
            "Authorization": f"Bearer {api_key}" if bearer else f"Basic {token}",
            # Without it, faults are logged on their side and answered 200.
            "X-Strict-Mode": "1",
        }

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    @property
    def limits(self) -> Limits:
        """In bytes of UTF-8."""
        return LIMITS

    @property
    def envelope(self) -> Envelope:
        """`{"batch":[...]}`."""
        return ENVELOPE

    def request(self, body: bytes) -> Request:
        """A POST to /batch."""
        return Request(url=self._url, headers=self._headers, body=body, encoding=self._encoding)

    def judge(self, answer: Answer, now: float) -> Verdict:
        """See verdicts.py; the API adds nothing of its own."""
        return judge(answer, now, _message(answer.body) if answer.status >= 400 else "")

    def warnings(self, payload: bytes, now: float) -> tuple[str, ...]:
        """By the limits of workspaces: see workspace.py."""
        return workspace_warnings(payload, now)


def _message(body: bytes) -> str:
    """What `{"meta":{"errors":["..."]}}` says."""
    try:
        errors = orjson.loads(body)["meta"]["errors"]
        text = "; ".join(str(error) for error in errors)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        text = body.decode("utf-8", "replace")
    return text[:_LONGEST_MESSAGE]
