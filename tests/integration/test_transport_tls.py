"""TLS, and proxies, of the HTTP transport: a real server with certificates made here."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from hostile_server import HostileServer

from pipeline.errors import ConfigError
from pipeline.model import Answer, Request
from pipeline.send.transport import HttpTransport, Timeouts

NOW = datetime.now(UTC)
BODY = b'{"batch":[{"userId":"1","messageId":"m"}]}'


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def transport(
    ca_file: Path | None = None, proxy: str | None = None, timeout: float = 5.0
) -> HttpTransport:
    return HttpTransport(
        connections=2,
        timeouts=Timeouts(connect=timeout, read=timeout, total=timeout),
        user_agent="retl-test",
        ca_file=ca_file,
        proxy=proxy,
    )


async def post(one: HttpTransport, url: str) -> Answer:
    answer = await one.post(Request(url=url, headers={"Authorization": "key"}, body=BODY))
    await one.close()
    return answer


async def test_an_authority_of_ones_own_is_trusted_when_it_is_given(
    authority: trustme.CA, ca_file: Path
) -> None:
    async with HostileServer().serving(serving(authority.issue_cert("localhost"))) as server:
        assert (await post(transport(), f"{server.url}/batch")).error == "certificate_untrusted"
        assert server.requests == 0
        assert (await post(transport(ca_file), f"{server.url}/batch")).status == 200
        await server.all_gone()
    assert len(server.taken) == 1


@pytest.mark.parametrize(
    ("name", "days", "word"),
    [
        ("localhost", (-9, -2), "certificate_expired"),
        ("localhost", (2, 9), "certificate_not_yet_valid"),
        ("other.test", (-9, 9), "certificate_hostname"),
        ("127.0.0.1", (-9, 9), "certificate_hostname"),
    ],
)
async def test_certificates_that_are_none(
    authority: trustme.CA, ca_file: Path, name: str, days: tuple[int, int], word: str
) -> None:
    starts, ends = (NOW + timedelta(days=count) for count in days)
    certificate = authority.issue_cert(name, not_before=starts, not_after=ends)
    async with HostileServer().serving(serving(certificate)) as server:
        answer = await post(transport(ca_file), f"{server.url}/batch")
        await server.all_gone()
    assert (answer.status, answer.error, server.requests) == (0, word, 0)


async def test_a_certificate_for_a_name_is_none_for_its_address(
    authority: trustme.CA, ca_file: Path
) -> None:
    async with HostileServer().serving(serving(authority.issue_cert("localhost"))) as server:
        url = server.url.replace("localhost", "127.0.0.1")
        answer = await post(transport(ca_file), f"{url}/batch")
    assert answer.error == "certificate_hostname"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_refused(authority: trustme.CA, ca_file: Path) -> None:
    context = serving(authority.issue_cert("localhost"))
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with HostileServer().serving(context) as server:
        answer = await post(transport(ca_file), f"{server.url}/batch")
    # A server that can't go on either says why or hangs up.
    assert answer.error in {"tls", "connect"}
    assert server.requests == 0


@pytest.mark.parametrize("content", [None, "", "not a certificate"])
def test_a_file_of_no_authority_is_said_before_anything_is_sent(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"ca\.pem .*`http\.ca_file`"):
        transport(path)


# ------------------------------------------------------------------------------ proxies


@dataclass
class Proxy:
    """Tunnels everything to one port, for those who say who they are."""

    port: int
    lets_in: str | None = None
    heads: list[str] = field(default_factory=list)
    url: str = ""
    talks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Proxy]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.talks.add(asyncio.create_task(self._talk(reader, writer)))

        listening = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        self.url = f"localhost:{port}"
        try:
            yield self
        finally:
            listening.close()
            for talk in self.talks:
                talk.cancel()
            await asyncio.wait(self.talks)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        if self.lets_in is not None and f"Proxy-Authorization: {self.lets_in}\r\n" not in head:
            writer.write(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n")
            await _close(writer)
            return
        there, out = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"HTTP/1.1 200 Through\r\n\r\n")
        try:
            await asyncio.gather(_pour(reader, out), _pour(there, writer))
        finally:
            await _close(out)
            await _close(writer)


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def port_of(server: HostileServer) -> int:
    return int(server.url.split(":")[2].split("/")[0])


async def test_a_proxy_tunnels_and_sees_no_key(authority: trustme.CA, ca_file: Path) -> None:
    secret = "Basic " + base64.b64encode(b"me@home:pass word").decode()
    certificate = serving(authority.issue_cert("cdp.test"))
    async with (
        HostileServer().serving(certificate) as server,
        Proxy(port_of(server), lets_in=secret).serving() as proxy,
    ):
        one = transport(ca_file, f"http://me%40home:pass%20word@{proxy.url}")
        for _ in range(2):
            request = Request(url="https://cdp.test/", headers={"K": "key"}, body=BODY)
            assert (await one.post(request)).status == 200
        await one.close()
        refused = await post(transport(ca_file, f"http://me:wrong@{proxy.url}"), "https://a/")
        await server.all_gone()
    assert len(server.taken) == 2
    assert proxy.heads[0].startswith("CONNECT cdp.test:443 ")
    assert "key" not in "".join(proxy.heads)
    assert len(proxy.heads) == 2  # the tunnel was kept; one more was asked for, and refused
    assert (refused.status, refused.error) == (0, "proxy_refused")


async def test_a_certificate_is_verified_through_a_proxy_too(
    authority: trustme.CA, ca_file: Path
) -> None:
    certificate = serving(authority.issue_cert("other.test"))
    async with (
        HostileServer().serving(certificate) as server,
        Proxy(port_of(server)).serving() as proxy,
    ):
        answer = await post(transport(ca_file, f"http://{proxy.url}"), "https://cdp.test/")
    assert (answer.error, server.requests) == ("certificate_hostname", 0)


async def test_loopback_is_reached_without_the_proxy_and_others_not_without_it() -> None:
    async with HostileServer().serving() as server:
        nowhere = "http://127.0.0.1:1"
        assert (await post(transport(proxy=nowhere), f"{server.url}/batch")).status == 200
        assert (await post(transport(proxy=nowhere), "https://cdp.test/")).error == "proxy"


async def test_the_environment_names_no_proxy(
    authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with HostileServer().serving(serving(authority.issue_cert("localhost"))) as server:
        assert (await post(transport(ca_file), f"{server.url}/batch")).status == 200
