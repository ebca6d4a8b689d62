"""Google's clients: credentials, endpoints and channel options, in one place.

On a loopback endpoint there is nobody to authenticate to: without credentials in the
configuration the clients are anonymous there.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import grpc
from google.api_core.client_info import ClientInfo
from google.api_core.gapic_v1.client_info import ClientInfo as GapicClientInfo
from google.auth.credentials import AnonymousCredentials, Credentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadAsyncClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcAsyncIOTransport,
)
from google.cloud.bigquery_storage_v1.services.big_query_read.transports.base import (
    DEFAULT_CLIENT_INFO,
)

from pipeline.source.credentials import load
from pipeline.source.patience import DEADLINE

# Unlimited receive: a stream's message may be 128 MB. Keepalive: a dead peer is noticed within
# 40 s; the values are those of Google's own streaming clients. Reconnecting: gRPC's own pauses grow
# to two minutes, in which every try fails at once. Pool: a channel opened in place of one that fell
# silent gets a connection of its own.
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 20_000),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
# Lookahead: what a stream may send before it is asked for. Fixed, since gRPC's own estimate grows
# with how long we do not ask; 4 MB in flight keep 200 MB/s coming over 20 ms. All streams together
# get what 16 of them would: 256 of 4 MB were measured to hold 1.2 GB for a slow destination.
_LOOKAHEAD, _LEAST_LOOKAHEAD, _ALL_LOOKAHEAD = 4_000_000, 65_536, 64_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach BigQuery, and as whom.

    credentials: JSON text of a service account's key or of a Workload Identity configuration.
    impersonate: e-mail address of the service account to act as.
    compression: of the rows on their way: lz4, none, or auto.
    endpoint: REST, a URL. storage_endpoint: gRPC, `host:port`, with `http://` before it for
    plain text.
    readers: streams read at a time, by all destinations together.
    read_deadline: how long an outage of the Storage Read API may last, in seconds.
    """

    project: str
    location: str | None = None
    credentials: str | None = field(default=None, repr=False)
    impersonate: str | None = None
    compression: str = "auto"
    endpoint: str | None = None
    storage_endpoint: str | None = None
    user_agent: str = ""
    readers: int = 4
    read_deadline: float = DEADLINE

    def jobs(self) -> bigquery.Client:
        """The REST client. Raises CredentialsError."""
        return bigquery.Client(
            project=self.project,
            location=self.location,
            credentials=self._credentials(self.endpoint),
            client_info=ClientInfo(user_agent=self.user_agent),
            client_options={"api_endpoint": self.endpoint} if self.endpoint else None,
        )

    def channel(self) -> grpc.aio.Channel:
        """A channel to the Storage Read API. Raises CredentialsError."""
        target, plain = _target(self.storage_endpoint)
        share = _ALL_LOOKAHEAD // max(1, self.readers)
        options = [
            *_CHANNEL_OPTIONS,
            ("grpc.http2.lookahead_bytes", max(_LEAST_LOOKAHEAD, min(_LOOKAHEAD, share))),
            ("grpc.primary_user_agent", self.user_agent),
        ]
        if plain:
            return grpc.aio.insecure_channel(target, options=options)
        return BigQueryReadGrpcAsyncIOTransport.create_channel(
            target or BigQueryReadGrpcAsyncIOTransport.DEFAULT_HOST,
            credentials=self._credentials(self.storage_endpoint),
            options=options,
        )

    def sessions(self, channel: grpc.aio.Channel) -> BigQueryReadAsyncClient:
        """The official client, for everything but reading rows."""
        transport = BigQueryReadGrpcAsyncIOTransport(
            channel=channel, client_info=self._client_info()
        )
        return BigQueryReadAsyncClient(transport=transport)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Metadata that the official client sends with every call, beside the routing."""
        return (self._client_info().to_grpc_metadata(),)

    def _client_info(self) -> GapicClientInfo:
        """The official client's, with our name before it."""
        return GapicClientInfo(
            user_agent=self.user_agent or None,
            gapic_version=DEFAULT_CLIENT_INFO.gapic_version,
            protobuf_runtime_version=DEFAULT_CLIENT_INFO.protobuf_runtime_version,
        )

    def principal(self) -> Credentials:
        """Who asks at the REST endpoint. Raises CredentialsError."""
        return self._credentials(self.endpoint)

    @property
    def compress(self) -> bool:
        """Whether rows come compressed. auto: where the way is long enough for it to pay.

        That is anywhere but this machine, where LZ4 costs more time than it saves.
        """
        if self.compression != "auto":
            return self.compression == "lz4"
        return not (self.storage_endpoint and _is_loopback(self.storage_endpoint))

    def _credentials(self, endpoint: str | None) -> Credentials:
        if not self.credentials and endpoint and _is_loopback(endpoint):
            return AnonymousCredentials()
        return load(self.credentials, self.impersonate)


def _target(endpoint: str | None) -> tuple[str, bool]:
    """GRPC target, and whether it is plain text."""
    if not endpoint:
        return "", False
    if "://" in endpoint:
        parts = urlsplit(endpoint)
        return parts.netloc, parts.scheme == "http"
    return endpoint, _is_loopback(endpoint)


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
