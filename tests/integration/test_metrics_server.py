"""The served /metrics, over a real socket, read by Prometheus' own parser and promtool."""

from __future__ import annotations

import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.errors import ConfigError
from pipeline.events import Attempted, Encoded, Settled, Started
from pipeline.metrics import METRICS, MetricsServer, PrometheusObserver, serve

ROUTE = {"sync": "users", "destination": "customerio"}


@pytest.fixture
def observer() -> PrometheusObserver:
    observer = PrometheusObserver("1.2.3")
    observer(Started(sync="users", destination="customerio", rows=10))
    observer(
        Encoded(
            **ROUTE,
            rows=10,
            nbytes=1,
            read_seconds=0.1,
            encode_seconds=0.1,
            invalid={"missing_id": 1},
        )
    )
    observer(
        Attempted(
            **ROUTE, status=200, error="", seconds=0.1, rows=9, nbytes=900, encoding="identity"
        )
    )
    observer(Settled(sync="users", destination="customerio", delivered=9))
    return observer


@pytest.fixture
def server(observer: PrometheusObserver) -> Iterator[MetricsServer]:
    server = serve(observer, "127.0.0.1", 0)
    yield server
    server.close()


def scrape(server: MetricsServer) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
        return str(answer.read(), "utf-8")


def test_a_scrape_parses_and_shows_every_metric(server: MetricsServer) -> None:
    families = {family.name: family for family in text_string_to_metric_families(scrape(server))}
    for each in METRICS:
        family = families[each.name.removesuffix("_total")]
        assert family.type == each.kind
        assert family.documentation == each.text
        assert family.samples


def test_a_scrape_shows_what_was_counted_up_to_now(
    server: MetricsServer, observer: PrometheusObserver
) -> None:
    delivered = 'retl_rows_total{destination="customerio",outcome="delivered",sync="users"}'
    assert f"{delivered} 9.0" in scrape(server)
    observer(Settled(sync="users", destination="customerio", delivered=1))
    assert f"{delivered} 10.0" in scrape(server)


def test_nothing_but_our_own_and_the_process_is_shown(server: MetricsServer) -> None:
    names = {family.name for family in text_string_to_metric_families(scrape(server))}
    assert {name for name in names if not name.startswith(("retl_", "process_"))} == set()


def test_promtool_finds_no_fault(server: MetricsServer) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=scrape(server),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_port_in_use_is_a_fault_with_a_remedy(observer: PrometheusObserver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            serve(observer, "127.0.0.1", port)
    (fault,) = caught.value.faults
    assert fault.where == "metrics.port"
    assert str(port) in fault.what
    assert "--metrics-port" in fault.remedy


@pytest.mark.parametrize("host", ["203.0.113.7", "bad..host"])
def test_an_address_that_is_not_ours_is_a_fault(observer: PrometheusObserver, host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        serve(observer, host, 0)
    (fault,) = caught.value.faults
    assert fault.where == "metrics.host"
    assert host in fault.what


def test_closing_frees_the_port_and_may_be_repeated(observer: PrometheusObserver) -> None:
    first = serve(observer, "127.0.0.1", 0)
    first.close()
    first.close()
    with pytest.raises(urllib.error.URLError):
        scrape(first)
    serve(observer, "127.0.0.1", first.port).close()
