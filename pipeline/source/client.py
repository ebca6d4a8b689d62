"""Google's clients: credentials, endpoints and channel options, in one place.

On a loopback endpoint there is nobody to authenticate to: without credentials in the
configuration the clients are anonymous there.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

import google.auth
import grpc
from google.api_core.client_info import ClientInfo
from google.api_core.gapic_v1.client_info import ClientInfo as GapicClientInfo
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadAsyncClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcAsyncIOTransport,
)
from google.oauth2 import service_account

from pipeline.errors import CredentialsError

_SCOPES = ("https://www.googleapis.com/auth/bigquery",)
# Unlimited receive: a stream's message may be 128 MB. Keepalive: a dead peer is noticed within
# 40 s; the values are those of Google's own streaming clients. Lookahead: what a stream may send
# before it is asked for; fixed, since gRPC's own estimate grows with how long we do not ask, and
# 4 MB in flight keep 200 MB/s coming over 20 ms.
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4_000_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach BigQuery. credentials: the text of a service account key.

    endpoint: REST, a URL. storage_endpoint: gRPC, `host:port`, with `http://` before it for
    plain text.
    """

    project: str
    location: str | None = None
    credentials: str | None = None
    endpoint: str | None = None
    storage_endpoint: str | None = None
    user_agent: str = ""

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
        options = [*_CHANNEL_OPTIONS, ("grpc.primary_user_agent", self.user_agent)]
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
            channel=channel, client_info=GapicClientInfo(user_agent=self.user_agent)
        )
        return BigQueryReadAsyncClient(transport=transport)

    @property
    def compress(self) -> bool:
        """Whether the way is long enough for compression to pay: anywhere but this machine."""
        return not (self.storage_endpoint and _is_loopback(self.storage_endpoint))

    def _credentials(self, endpoint: str | None) -> Credentials:
        try:
            found: Credentials
            if self.credentials:
                found = service_account.Credentials.from_service_account_info(
                    json.loads(self.credentials), scopes=_SCOPES
                )
            elif endpoint and _is_loopback(endpoint):
                found = AnonymousCredentials()
            else:
                found, _ = google.auth.default(scopes=_SCOPES)
        except (GoogleAuthError, ValueError) as error:
            # The messages of ValueErrors may quote the key: only the type is told.
            raise CredentialsError(
                f"No usable Google credentials ({type(error).__name__}). Set `credentials` of the "
                "source to a service account key (`${file:/path/key.json}`), or provide "
                "Application Default Credentials (`gcloud auth application-default login`, "
                "Workload Identity)."
            ) from None
        return found


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
