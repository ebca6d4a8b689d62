"""What every destination keeps, whoever wrote it. Each `check_` raises AssertionError.

Usable by packages that add a destination: nothing here knows one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.encode.packer import Packer
from pipeline.model import Action, Answer, Payloads, Span, Verdict
from pipeline.ports import Destination

NOW = 1_700_000_000.0
# What may stand in a header or body that somebody else wrote.
_HEADERS = (None, "", "3", "-1", "soon", "9" * 400, "Tue, 14 Nov 2023 22:13:50 GMT", "\u0661")
_BODIES = (b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"meta":null}', b'{"meta":{"errors":3}}')
_MESSAGES = (*_BODIES, b'{"error":{"a":1}}', b'{"errors":[{"a":null}]}', b'{"message":["x"]}')
_LARGE = 20_000  # a body of so many bytes is not kept whole


@dataclass(frozen=True)
class Case:
    """destination: made with these secrets. read: the payloads of a body, as the receiver would."""

    destination: Destination
    secrets: Sequence[str]
    read: Callable[[bytes], list[object]]


def check_bodies(case: Case) -> None:
    """A separator of one byte, and a body that holds exactly the payloads."""
    destination = case.destination
    assert len(destination.envelope.separator) == 1
    for wanted in ([{"type": "track", "a": 1}], [{"type": "track", "é": '"]}'}, {"n": [1, None]}]):
        payloads = [json.dumps(one, ensure_ascii=False).encode() for one in wanted]
        for few in (payloads, payloads[:1]):
            if len(few) <= destination.limits.batch_rows:
                body = destination.envelope.wrap(few)
                request = destination.request(body)
                assert bytes(request.body) == body
                # As the sender has it: in pieces.
                sent = destination.request(destination.envelope.pieces(few))
                assert bytes(sent.body) == body
                assert request.encoding in {"identity", "gzip"}
                assert case.read(bytes(request.body)) == wanted[: len(few)]
    destination.request(destination.envelope.wrap([]))  # what `retl doctor` sends


def check_limits(case: Case) -> None:
    """Bodies are full, and none is over a limit by a byte or a row."""
    destination = case.destination
    limits, envelope = destination.limits, destination.envelope
    assert 0 < limits.payload_bytes <= limits.batch_bytes
    assert limits.batch_rows >= 1
    largest = limits.payload_bytes
    many = min(limits.batch_rows, 3_000) + 2
    for sizes in ([largest] * 3, [1] * many, [largest, 1, largest, 1], [largest - 1, 2, largest]):
        payloads = _payloads(sizes, envelope.separator)
        packer = Packer(limits, envelope, stream=0, first=0)
        batches = [*packer.add(payloads), *packer.flush()]
        assert sum(batch.rows for batch in batches) == len(sizes)
        for batch in batches:
            assert batch.rows <= limits.batch_rows
            body = envelope.wrap([piece.view for piece in batch.slices])
            assert len(destination.request(body).body) <= limits.batch_bytes


def check_verdicts(case: Case, *, files: bool = False) -> None:
    """Every answer has a verdict, and no passing fault ends the run or costs a row.

    files: an answer is always success there; faults are raised.
    """
    for answer in _answers():
        verdict = case.destination.judge(answer, NOW)
        assert isinstance(verdict, Verdict)
        assert len(verdict.message) <= 1_000
        assert len(verdict.reason) <= 60
        if files:
            continue
        status, action = answer.status, verdict.action
        if 200 <= status < 300:
            assert action is Action.DELIVERED
        else:
            assert action is not Action.DELIVERED, status
        # 501 is no outage: what is asked for does not exist.
        if status == 0 or (status >= 500 and status != 501) or status in {408, 429}:
            assert action is Action.RETRY, status
            assert verdict.reason
        if status in {401, 403}:
            assert (action, verdict.credentials) == (Action.HALT, True)
        if status == 429:
            assert verdict.throttled
        if verdict.after is not None:
            assert 0 <= verdict.after <= 3_600


def check_secrets(case: Case) -> None:
    """Secrets go in headers, and show nowhere else."""
    destination = case.destination
    request = destination.request(destination.envelope.wrap([b'{"type":"track"}']))
    shown = [repr(destination), str(destination), repr(request), destination.name]
    shown += [repr(destination.judge(answer, NOW)) for answer in _answers()]
    shown += [bytes(request.body).decode(), request.url]
    encoded = [base64.b64encode(secret.encode()).decode()[:-4] for secret in case.secrets]
    for secret in (*case.secrets, *encoded):
        assert not [text for text in shown if secret in text]
    assert b"type" not in repr(request).encode(), "a repr shows rows"


def check_warnings(case: Case) -> None:
    """Previews may show any payload; a warning never shows a value."""
    payloads = [
        *(b"{}", b"[]", b"null", b"", b"{", b"\xff", b'{"type":1}', b'{"type":"track"}'),
        b'{"type":"identify","traits":null}',
        b'{"type":"identify","traits":[1]}',
        b'{"type":"track","event":7,"timestamp":[],"properties":"x"}',
        b'{"type":"group","traits":{"a":"' + b"hunter2" * 1_000 + b'"}}',
    ]
    for payload in payloads:
        warnings = case.destination.warnings(payload, NOW)
        assert all(isinstance(text, str) and text for text in warnings)
        assert not [text for text in warnings if "hunter2" in text]


CHECKS = (check_bodies, check_limits, check_secrets, check_warnings)


def _answers() -> Iterator[Answer]:
    for status in range(600):
        error = None if status else "reset"
        for body in _MESSAGES:
            yield Answer(status=status, body=body, error=error)
        yield Answer(status=status, body=b"x" * _LARGE, error=error)
        for header in _HEADERS:
            yield Answer(status=status, retry_after=header, error=error)
            yield Answer(status=status, rate_limit_reset=header, error=error)


def _payloads(sizes: Sequence[int], separator: bytes) -> Payloads:
    data = b"".join(b"x" * size + separator for size in sizes)
    offsets = np.concatenate([[0], np.cumsum([size + 1 for size in sizes])]).astype(np.int64)
    span = Span(stream=0, first=0, rows=len(sizes))
    return Payloads(data=memoryview(data), offsets=offsets, span=span)
