"""All destinations under one suite; a new one gets a line in `CASES`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from destination_conformance import CHECKS, Case, check_verdicts

from pipeline.destination.customerio import Customerio
from pipeline.destination.file import File, part_limits
from pipeline.destination.rudderstack import Rudderstack
from pipeline.destination.segment import Segment
from pipeline.destination.webhook import Signature, Webhook
from pipeline.model import Envelope, Limits

SECRET = "hunter2-the-secret"
LIMITS = Limits(payload_bytes=900, batch_bytes=1_000, batch_rows=7)


def of_batch(body: bytes) -> list[object]:
    found: list[object] = json.loads(body)["batch"]
    return found


def of_lines(body: bytes) -> list[object]:
    return [json.loads(line) for line in body.decode().split("\n") if line]


def webhook(
    envelope: Envelope, read: Callable[[bytes], list[object]], *, stamped: bool = False
) -> Case:
    signature = Signature(
        secret=SECRET.encode(),
        header="X-Signature",
        timestamp_header="X-Time" if stamped else None,
        clock=lambda: 7.0,
    )
    return Case(
        Webhook(
            name="hook",
            url="https://example.com/in",
            headers={"Authorization": SECRET},
            limits=LIMITS,
            envelope=envelope,
            verdicts={},
            signature=signature,
        ),
        [SECRET],
        read,
    )


CASES = {
    "customerio": Case(Customerio(name="x", api_key=SECRET), [SECRET], of_batch),
    "customerio bearer": Case(Customerio(name="x", api_key=f"sk_us_{SECRET}"), [SECRET], of_batch),
    "customerio single": Case(
        Customerio(name="x", api_key=SECRET, single=True), [SECRET], lambda b: [json.loads(b)]
    ),
    "segment": Case(Segment(name="x", write_key=SECRET), [SECRET], of_batch),
    "rudderstack": Case(
        Rudderstack(name="x", write_key=SECRET, endpoint="https://example.com"), [SECRET], of_batch
    ),
    "webhook array": webhook(Envelope(prefix=b"[", separator=b",", suffix=b"]"), json.loads),
    "webhook lines": webhook(
        Envelope(prefix=b"", separator=b"\n", suffix=b"\n"), of_lines, stamped=True
    ),
    "webhook key": webhook(Envelope(prefix=b'{"batch":[', separator=b",", suffix=b"]}"), of_batch),
    "file": Case(File(name="x"), [], of_lines),
    "file parts": Case(File(name="x", limits=part_limits(100_000)), [], of_lines),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_a_destination_keeps(name: str, check: Callable[[Case], None]) -> None:
    check(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_every_answer_has_a_verdict(name: str) -> None:
    check_verdicts(CASES[name], files=name.startswith("file"))
