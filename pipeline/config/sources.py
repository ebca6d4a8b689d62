"""Where rows come from, as typed, frozen values: `sources` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from pipeline.config import addresses, values
from pipeline.config.base import HttpEndpoint, Model, Text
from pipeline.config.units import NO_BOOL, Duration, Size

GrpcEndpoint = Annotated[str, AfterValidator(addresses.grpc_endpoint)]


class BigQuerySource(Model):
    """A BigQuery project, with its credentials and limits."""

    type: Literal["bigquery"] = Field(description="The kind of source.")
    project: Text = Field(description="Google Cloud project that runs and pays for the queries.")
    location: Text | None = Field(
        default=None,
        description="Location of the data, such as `US` or `europe-west1`. "
        "Left out: BigQuery finds it from the tables.",
    )
    credentials: Annotated[SecretStr, AfterValidator(values.google_credentials)] | None = Field(
        default=None,
        description="The JSON text of a service account key, or of a Workload Identity Federation "
        "configuration (`external_account`), normally `${file:PATH}`. "
        "Left out: Application Default Credentials (Workload Identity, gcloud).",
    )
    impersonate: Annotated[str, AfterValidator(values.service_account)] | None = Field(
        default=None,
        description="E-mail address of a service account to act as. The credentials need "
        "roles/iam.serviceAccountTokenCreator on it, and it the roles for BigQuery.",
    )
    priority: Literal["interactive", "batch"] = Field(
        default="interactive",
        description="`batch` queries wait until slots are idle and don't count towards the limit "
        "of concurrent queries.",
    )
    query_timeout: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None,
        description="How long a query may take, waiting for slots included. One that takes longer "
        "is cancelled, and the run ends with exit code 78. Left out: BigQuery's six hours.",
    )
    maximum_bytes_billed: Size = Field(
        default=100 * 10**9,
        gt=0,
        description="A query that would be billed for more bytes is refused before it runs. "
        "Raise it for a sync that has to scan more.",
    )
    price_per_tib: Annotated[float, Field(ge=0, allow_inf_nan=False), NO_BOOL] = Field(
        default=6.25,  # the on-demand price in the US multi-region
        description="What BigQuery charges for scanning a TiB, in US dollars, for the estimates of "
        "`retl plan`. 0 where you pay for slots and not for bytes.",
    )
    labels: Annotated[dict[str, str], AfterValidator(values.labels)] = Field(
        default_factory=dict,
        description="Labels of the query jobs, to find their cost on the bill.",
    )
    endpoint: HttpEndpoint | None = Field(
        default=None,
        description="URL of BigQuery's REST API, for a private endpoint, a proxy or a local "
        "server. Plain http only on loopback. "
        "Left out: `BIGQUERY_EMULATOR_HOST` if it is set, else Google's.",
    )
    storage_endpoint: GrpcEndpoint | None = Field(
        default=None,
        description="gRPC address of BigQuery's Storage Read API: `host:port` with TLS, or "
        "`http://host:port` without, only on loopback. Left out: Google's.",
    )


class FileSource(Model):
    """Parquet or Arrow IPC files."""

    type: Literal["file"] = Field(description="The kind of source.")
    path: Text = Field(
        description="A Parquet or Arrow IPC file, a directory of them, or a URI (`gs://`, `s3://`)."
    )


AnySource = Annotated[BigQuerySource | FileSource, Field(discriminator="type")]
