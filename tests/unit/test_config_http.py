"""`http` of the configuration, what the transport gets of it, and what `retl doctor` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config import Config
from pipeline.findings import Finding, Outcome
from pipeline.wiring.probe import probe
from pipeline.wiring.routes import make_http_transport


def config(endpoint: str = "https://127.0.0.1:1", **http: Any) -> Config:
    return Config.model_validate(
        {
            "version": 1,
            "sources": {"lake": {"type": "file", "path": "rows.parquet"}},
            "destinations": {"cio": {"type": "customerio", "api_key": "k", "endpoint": endpoint}},
            "syncs": {"users": {"source": "lake", "call": "identify", "destinations": ["cio"]}},
            "http": http,
        }
    )


@pytest.mark.parametrize(
    "url",
    ["http://proxy:3128", "https://me:p%40ss@10.0.0.1:443/", " http://[::1]:80 "],
)
def test_proxies(url: str) -> None:
    proxy = config(proxy=url).http.proxy
    assert proxy is not None
    assert proxy.get_secret_value() == url.strip().rstrip("/")
    assert "ss" not in repr(proxy)


@pytest.mark.parametrize(
    "url",
    [
        *("proxy:3128", "socks5://proxy:1080", "http://proxy", "http://:3128", "http://a:99999"),
        *("http://proxy:3128/path", "http://proxy:3128?x=secret", "http://a b:1", ""),
        "http://secret%3Asecret@proxy:3128",
    ],
)
def test_what_is_no_proxy(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(proxy=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["cdp.customer.io", "*.example.com", "localhost", "10.0.0.1", "::1"]
)
def test_hosts(name: str) -> None:
    assert config(allowed_hosts=[name]).http.allowed_hosts == [name]


@pytest.mark.parametrize(
    "name", ["https://a.b", "a.b:443", "a.b/c", "*", "*.", "a.*.b", "a..b", "", "a b", "a,b"]
)
def test_what_is_no_host(name: str) -> None:
    with pytest.raises(ValidationError):
        config(allowed_hosts=[name])


def test_reading_may_take_as_long_as_all_of_it_unless_it_is_said() -> None:
    data = config().model_dump(exclude={"destinations", "http"})
    data |= {"destinations": {"out": {"type": "file", "path": "x"}}}
    data["syncs"]["users"]["destinations"] = ["out"]
    one = Config.model_validate({**data, "send": {"timeout": "9s", "connect_timeout": "2s"}})
    timeout = make_http_transport(one)._timeout
    assert (timeout.total, timeout.sock_read, timeout.sock_connect) == (9.0, 9.0, 2.0)
    one = Config.model_validate({**data, "send": {"timeout": "9s", "read_timeout": "3s"}})
    assert make_http_transport(one)._timeout.sock_read == 3.0


async def found(one: Config) -> Finding:
    findings = [finding async for finding in probe(one, "cio")]
    assert [finding.check for finding in findings] == ["reachable", "key"]
    assert findings[1].outcome is Outcome.SKIPPED
    return findings[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoint": "https://169.254.169.254"}, "gives out credentials"),
        ({"allowed_hosts": ["cdp.customer.io"]}, "not one of `http.allowed_hosts`"),
        ({"ca_file": "nowhere.pem"}, "can't be read"),
    ],
)
async def test_doctor_says_what_a_run_would_not_even_try(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    finding = await found(config(**options).located(tmp_path))
    assert (finding.outcome, finding.exit_code) == (Outcome.FAILED, 78)
    assert said in finding.what


async def test_doctor_knows_why_there_was_no_answer() -> None:
    finding = await found(config(proxy="http://127.0.0.1:1", endpoint="https://cdp.test"))
    assert finding.what == "no answer (proxy)"
    assert "`http.proxy`" in finding.remedy
