"""RudderStack's HTTP API, by the /v1/batch endpoint of a data plane of one's own.

Source of limits and answers: its documentation and the source of its gateway. 413 above 4,000 KiB
a request; one event without a userId or anonymousId fails its whole batch with 400, which the
split undoes; 401 a wrong write key; 404 a source that is disabled, which halts the run.
"""

from __future__ import annotations

from pipeline.destination.api import BatchApi, basic
from pipeline.destination.rows import ids_missing
from pipeline.model import Limits

# 32 KB an event is documented, and 4,000 KiB a request. A megabyte is far from that, costs few
# requests, and keeps what many requests in flight hold small. No row limit is known.
LIMITS = Limits(payload_bytes=32_000, batch_bytes=1_000_000, batch_rows=2_500)


class Rudderstack(BatchApi):
    """A `Destination`. endpoint: the data plane's URL, without /v1."""

    def __init__(
        self, *, name: str, write_key: str, endpoint: str, encoding: str = "identity"
    ) -> None:
        super().__init__(
            name=name,
            url=endpoint.rstrip("/").removesuffix("/v1") + "/v1/batch",
            headers={"Authorization": basic(write_key)},
            limits=LIMITS,
            encoding=encoding,
        )

    def warnings(self, payload: bytes, now: float) -> tuple[str, ...]:  # noqa: ARG002 - the port's shape
        """Events without an id are refused."""
        return ids_missing(payload, "RudderStack refuses it")
