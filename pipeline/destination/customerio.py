"""Customer.io's Data Pipelines API, by /batch or by one request a call.

Source of paths, keys, strict mode and limits: its published OpenAPI and official SDKs. "KB" is
not defined there: the ceilings take it as 1,000 bytes, the smaller reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from pipeline.destination.api import BATCH, BatchApi, basic
from pipeline.destination.workspace import workspace_warnings
from pipeline.model import Body, Call, Envelope, Limits, Request

HOSTS = {"us": "https://cdp.customer.io/v1", "eu": "https://cdp-eu.customer.io/v1"}
# Over 32 KB a call or 500 KB a batch the API answers 200 and drops: stay under, with room for
# what the API may count beside the body. No row limit is documented; 2,500 is Segment's.
# 3,000 requests in 3 seconds are allowed, and what exceeds them may be dropped.
# Longer ids are refused by the workspace behind the pipeline, long after the 200 (Track API).
# No limit of messageIds is documented; less than 100 characters is Segment's, whose protocol it is.
LIMITS = Limits(
    payload_bytes=32_000,
    batch_bytes=480_000,
    batch_rows=2_500,
    requests_per_second=1_000.0,
    id_bytes=150,
    message_id_chars=99,
)
ENVELOPE = BATCH
# One payload, and nothing around it.
SINGLE = Envelope(prefix=b"", separator=b"\n", suffix=b"")
SINGLE_LIMITS = replace(LIMITS, batch_bytes=LIMITS.payload_bytes, batch_rows=1)
# Keys that name their region go as Bearer tokens, all others as the user of Basic auth.
_BEARER_KEY = re.compile(r"(?:pk|sk)_(us|eu)_")
# The encoder writes the call first.
_CALL = re.compile(rb'\{"type":"([a-z]+)"')
_CALLS = frozenset(call.encode() for call in Call)


def key_region(api_key: str) -> str | None:
    """The region that a key names: us or eu; None for a key that names none."""
    bearer = _BEARER_KEY.match(api_key)
    return bearer[1] if bearer else None


class Customerio(BatchApi):
    """A `Destination`.

    region: us or eu; a key that names its region knows better. endpoint: overrides the region's
    host, e.g. http://127.0.0.1:8080/v1. strict: have faults refused, instead of answered 200 and
    dropped. single: one request a payload, to the endpoint of its call.
    """

    def __init__(
        self,
        *,
        name: str,
        api_key: str,
        region: str = "us",
        endpoint: str | None = None,
        encoding: str = "identity",
        strict: bool = True,
        single: bool = False,
    ) -> None:
        named = key_region(api_key)
        self._base = (endpoint or HOSTS[named or region]).rstrip("/")
        self._single = single
        headers: Mapping[str, str] = {
            "Authorization": f"Bearer {api_key}" if named else basic(api_key),
            # Without it, faults are logged on their side and answered 200.
            **({"X-Strict-Mode": "1"} if strict else {}),
        }
        super().__init__(
            name=name,
            url=f"{self._base}/batch",
            headers=headers,
            limits=SINGLE_LIMITS if single else LIMITS,
            envelope=SINGLE if single else ENVELOPE,
            encoding=encoding,
        )

    def request(self, body: Body) -> Request:
        """A POST to /batch, or to the path of the payload's call."""
        request = super().request(body)
        if not self._single:
            return request
        call = _CALL.match(bytes(body))
        if call is None or call[1] not in _CALLS:
            return request
        return replace(request, url=f"{self._base}/{call[1].decode()}")

    def warnings(self, payload: bytes, now: float) -> tuple[str, ...]:
        """By the limits of workspaces: see workspace.py."""
        return workspace_warnings(payload, now)
