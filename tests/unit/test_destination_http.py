"""Segment, RudderStack and webhooks: what they send, and what answers mean to them."""

from __future__ import annotations

import base64
import hmac

import pytest

from pipeline.destination.rudderstack import Rudderstack
from pipeline.destination.segment import Segment
from pipeline.destination.webhook import Signature, Webhook
from pipeline.model import Action, Answer, Envelope, Limits

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
ARRAY = Envelope(prefix=b"[", separator=b",", suffix=b"]")
BASIC = "Basic " + base64.b64encode(b"key:").decode()


def hook(**own: object) -> Webhook:
    settings: dict[str, object] = {
        "name": "hook",
        "url": "https://example.com/in?a=1",
        "headers": {"X-Token": "t"},
        "limits": Limits(payload_bytes=100, batch_bytes=200, batch_rows=3),
        "envelope": ARRAY,
        "verdicts": {},
    }
    return Webhook(**(settings | own))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("region", "endpoint", "url"),
    [
        ("us", None, "https://api.segment.io/v1/batch"),
        ("eu", None, "https://events.eu1.segmentapis.com/v1/batch"),
        ("us", "http://127.0.0.1:1/v1/", "http://127.0.0.1:1/v1/batch"),
    ],
)
def test_segment_is_asked_at(region: str, endpoint: str | None, url: str) -> None:
    one = Segment(name="s", write_key="key", region=region, endpoint=endpoint)
    request = one.request(one.envelope.wrap([b"{}", b"{}"]))
    assert (request.url, request.method) == (url, "POST")
    assert request.headers["Authorization"] == BASIC
    assert request.body == b'{"batch":[{},{}]}'
    assert (one.limits.payload_bytes, one.limits.batch_rows) == (32_000, 2_500)
    assert one.limits.batch_bytes <= 500_000


@pytest.mark.parametrize(
    ("retry", "reset", "after"),
    [
        ("7", "99", 7.0),
        (None, "12", 12.0),
        (None, "1700000030", 30.0),
        (None, "1600000000", 0.0),
        (None, "Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        (None, "9" * 30, 3600.0),
        (None, "soon", None),
        (None, None, None),
    ],
)
def test_segment_says_when_to_come_again(
    retry: str | None, reset: str | None, after: float | None
) -> None:
    answer = Answer(status=429, retry_after=retry, rate_limit_reset=reset)
    verdict = Segment(name="s", write_key="key").judge(answer, NOW)
    assert (verdict.action, verdict.after, verdict.throttled) == (Action.RETRY, after, True)


def test_a_reset_header_means_nothing_on_other_answers() -> None:
    one = Segment(name="s", write_key="key")
    assert one.judge(Answer(status=200, rate_limit_reset="9"), NOW).after is None
    assert one.judge(Answer(status=400, rate_limit_reset="9"), NOW).action is Action.SPLIT


@pytest.mark.parametrize("endpoint", ["https://x.example.com", "https://x.example.com/v1/"])
def test_rudderstack_is_a_data_plane_of_ones_own(endpoint: str) -> None:
    one = Rudderstack(name="r", write_key="key", endpoint=endpoint)
    request = one.request(b"{}")
    assert request.url == "https://x.example.com/v1/batch"
    assert request.headers["Authorization"] == BASIC
    assert one.limits.batch_bytes < 4_000 * 1_024


@pytest.mark.parametrize(
    ("status", "action"),
    [
        (400, Action.SPLIT),
        (401, Action.HALT),
        (404, Action.HALT),
        (413, Action.SPLIT),
        (429, Action.RETRY),
        (503, Action.RETRY),
        (504, Action.RETRY),
    ],
)
def test_rudderstack_answers(status: int, action: Action) -> None:
    verdict = Rudderstack(name="r", write_key="k", endpoint="https://x.example.com").judge(
        Answer(status=status), NOW
    )
    assert verdict.action is action
    assert verdict.by_size == (status == 413)


@pytest.mark.parametrize(
    ("payload", "warned"),
    [
        (b'{"type":"track","userId":"7"}', False),
        (b'{"type":"track","anonymousId":"7"}', False),
        (b'{"type":"track","groupId":"7"}', True),
        (b'{"type":"identify","userId":"","traits":{"email":"hunter2"}}', True),
    ],
)
def test_rows_without_an_id_are_warned_of(payload: bytes, warned: bool) -> None:  # noqa: FBT001
    segment = Segment(name="s", write_key="key")
    rudder = Rudderstack(name="r", write_key="k", endpoint="https://x.example.com")
    for one in (segment, rudder):
        found = one.warnings(payload, NOW)
        assert bool(found) is warned
        assert "hunter2" not in "".join(found)


def test_a_webhook_sends_what_it_is_told() -> None:
    one = hook(method="PUT", encoding="gzip")
    request = one.request(one.envelope.wrap([b"{}", b"{}"]))
    assert (request.method, request.url) == ("PUT", "https://example.com/in?a=1")
    assert (request.body, request.encoding) == (b"[{},{}]", "gzip")
    assert request.headers == {"X-Token": "t"}


def test_a_signature_is_over_the_body() -> None:
    signature = Signature(secret=b"s", header="X-Sign", prefix="sha256=", clock=lambda: 0.0)
    headers = hook(signature=signature).request(b"[{}]").headers
    assert headers["X-Sign"] == "sha256=" + hmac.new(b"s", b"[{}]", "sha256").hexdigest()
    assert headers["X-Token"] == "t"


def test_a_signature_may_hold_the_time_of_the_attempt() -> None:
    times = iter([5.9, 6.1])
    signature = Signature(
        secret=b"s", header="X-Sign", timestamp_header="X-Time", clock=lambda: next(times)
    )
    one = hook(signature=signature)
    for second in ("5", "6"):
        headers = one.request(b"[]").headers
        assert headers["X-Time"] == second
        expected = hmac.new(b"s", f"{second}.[]".encode(), "sha256").hexdigest()
        assert headers["X-Sign"] == expected


OWN = {
    "409": Action.DELIVERED,
    "404": Action.REJECT,
    "4xx": Action.SPLIT,
    "501": Action.RETRY,
    "202": Action.RETRY,
    "500": Action.HALT,
}


@pytest.mark.parametrize(
    ("status", "action", "reason"),
    [
        (200, Action.DELIVERED, ""),
        (202, Action.RETRY, "http_202"),
        (302, Action.HALT, "http_302"),
        (400, Action.SPLIT, "rejected_400"),
        (401, Action.SPLIT, "rejected_401"),
        (404, Action.REJECT, "rejected_404"),
        (409, Action.DELIVERED, ""),
        (413, Action.SPLIT, "rejected_413"),
        (429, Action.SPLIT, "rejected_429"),
        (500, Action.HALT, "http_500"),
        (501, Action.RETRY, "http_501"),
        (503, Action.RETRY, "http_503"),
        (0, Action.RETRY, "reset"),
    ],
)
def test_own_verdicts_go_before_the_table(status: int, action: Action, reason: str) -> None:
    answer = Answer(status=status, body=b'{"message":"no"}', error=None if status else "reset")
    verdict = hook(verdicts=OWN).judge(answer, NOW)
    assert (verdict.action, verdict.reason) == (action, reason)
    assert verdict.message == ("no" if action in {Action.SPLIT, Action.REJECT} else "")
    assert verdict.by_size == (status == 413)
    assert not verdict.credentials


def test_a_webhook_without_verdicts_has_the_table() -> None:
    assert hook().judge(Answer(status=403), NOW).credentials
    wait = hook(verdicts={"409": Action.RETRY}).judge(Answer(status=409, retry_after="4"), NOW)
    assert (wait.action, wait.after, wait.throttled) == (Action.RETRY, 4.0, False)
