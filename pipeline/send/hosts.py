"""Where requests may go: https or this machine, hosts that are allowed, no metadata services. Pure.

A host is checked by its name before a connection is made, and by each address that its name has,
so that no name leads to an address that could not be given itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from pipeline.errors import DestinationRefused

# Where clouds serve a machine its own credentials, besides the link-local 169.254.169.254 that
# most use: AWS by IPv6, Alibaba, Azure's WireServer, Oracle.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)


class Hosts:
    """allowed: names, or `*.example.com` for those below one; empty: any."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(_plain(name) for name in allowed)
        self._passed: set[str] = set()

    def check(self, url: str) -> None:
        """Raises DestinationRefused when nothing may be sent there."""
        if url in self._passed:
            return
        parts = urlsplit(url)
        host = _plain(parts.hostname or "")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
            raise DestinationRefused(
                f"Nothing is sent to {host} without TLS. Use https; plain http is for loopback."
            )
        if not self._allows(host):
            raise DestinationRefused(
                f"{host} is not one of `http.allowed_hosts`, so nothing was sent to it. Add it, or "
                "change the destination's URL."
            )
        if _is_forbidden(host):
            raise DestinationRefused(refusal(host))
        self._passed.add(url)

    def _allows(self, host: str) -> bool:
        if not self._allowed or host in self._allowed:
            return True
        _, *parents = host.split(".")
        return any("*." + ".".join(parents[at:]) in self._allowed for at in range(len(parents)))


def accepts(host: str, address: str) -> bool:
    """Whether a host with that IP address may be connected to."""
    return not _is_forbidden(address) and (_plain(host) != "localhost" or is_loopback(address))


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def is_ip(host: str) -> bool:
    """Whether it is an IP address, not a name."""
    return _address(host) is not None


def refusal(host: str) -> str:
    """What to say of a host that no address of which is accepted."""
    return (
        f"{host} is an address within this machine's network that gives out credentials, or no "
        "host's, so nothing was sent to it. Check the destination's URL, and its name in DNS."
    )


def _is_forbidden(host: str) -> bool:
    address = _address(host)
    return address is not None and (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address in _METADATA
    )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    inside = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return inside or address


def _plain(host: str) -> str:
    return host.strip().rstrip(".").lower()
