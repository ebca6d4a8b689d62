from __future__ import annotations

import base64

import pytest

from pipeline.destination.customerio import Customerio
from pipeline.destination.file import File
from pipeline.destination.verdicts import retry_after
from pipeline.model import Action, Answer

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def test_plain_keys_are_basic_and_the_region_picks_the_host() -> None:
    request = Customerio(name="cio", api_key="key", region="eu").request(b"{}")
    assert request.url == "https://cdp-eu.customer.io/v1/batch"
    assert request.headers["Authorization"] == "Basic " + base64.b64encode(b"key:").decode()
    assert request.headers["X-Strict-Mode"] == "1"


def test_keys_that_name_a_region_are_bearer_tokens_and_pick_the_host() -> None:
    request = Customerio(name="cio", api_key="sk_eu_x", region="us").request(b"{}")
    assert request.url == "https://cdp-eu.customer.io/v1/batch"
    assert request.headers["Authorization"] == "Bearer sk_eu_x"
    own = Customerio(name="cio", api_key="sk_eu_x", endpoint="http://127.0.0.1:1/v1/")
    assert own.request(b"").url == "http://127.0.0.1:1/v1/batch"


def test_strict_mode_may_be_left_out() -> None:
    request = Customerio(name="cio", api_key="key", strict=False).request(b"{}")
    assert "X-Strict-Mode" not in request.headers


@pytest.mark.parametrize("call", ["identify", "track", "group", "page", "screen", "alias"])
def test_single_calls_go_to_the_path_of_their_call(call: str) -> None:
    one = Customerio(name="cio", api_key="key", single=True)
    assert one.limits.batch_rows == 1
    body = one.envelope.wrap([b'{"type":"%s","userId":"7"}' % call.encode()])
    request = one.request(body)
    assert request.url == f"https://cdp.customer.io/v1/{call}"
    assert request.body == body
    for other in (b"", b"{}", b'{"type":"batches"}', b'{"type":"../x"}'):
        assert one.request(other).url == "https://cdp.customer.io/v1/batch"
    assert Customerio(name="cio", api_key="key").request(body).url.endswith("/batch")


@pytest.mark.parametrize(
    ("answer", "action", "reason", "message"),
    [
        (Answer(status=200, body=b"{}"), Action.DELIVERED, "", ""),
        (
            Answer(status=400, body=b'{"meta":{"errors":["a","b"]}}'),
            Action.SPLIT,
            "rejected_400",
            "a; b",
        ),
        (Answer(status=422, body=b"<html>\xff"), Action.SPLIT, "rejected_422", "<html>\ufffd"),
        (Answer(status=400, body=b'{"error":"a"}'), Action.SPLIT, "rejected_400", "a"),
        (Answer(status=400, body=b"[]"), Action.SPLIT, "rejected_400", "[]"),
        (Answer(status=400, body=b"x" * 9999), Action.SPLIT, "rejected_400", "x" * 500),
        (Answer(status=413), Action.SPLIT, "rejected_413", ""),
        (Answer(status=401), Action.HALT, "http_401", ""),
        (Answer(status=418), Action.HALT, "http_418", ""),
        (Answer(status=503), Action.RETRY, "http_503", ""),
        (Answer(status=0, error="dns"), Action.RETRY, "dns", ""),
    ],
)
def test_answers_become_verdicts(answer: Answer, action: Action, reason: str, message: str) -> None:
    verdict = Customerio(name="cio", api_key="k").judge(answer, NOW)
    assert (verdict.action, verdict.reason, verdict.message) == (action, reason, message)
    assert verdict.by_size == (answer.status == 413)
    assert verdict.credentials == (answer.status == 401)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("12", 12.0),
        (" 0 ", 0.0),
        ("999999", 3600.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("١٢", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


def test_a_file_takes_lines() -> None:
    file = File(name="out")
    assert file.request(file.envelope.wrap([b"{}", b"{}"])).body == b"{}\n{}\n"
    assert file.judge(Answer(status=200), NOW).action is Action.DELIVERED
    assert file.limits.payload_bytes < file.limits.batch_bytes
