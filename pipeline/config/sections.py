"""How reading, sending and all else is done, as typed, frozen values: the other sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, WithJsonSchema

from pipeline.config import addresses, values
from pipeline.config.base import Model, Text
from pipeline.config.units import NO_BOOL, Duration, Size, Whole

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False), NO_BOOL]
Concurrency = Annotated[
    int | str,
    BeforeValidator(values.concurrency),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": ["adaptive"]},
                {"type": "integer", "minimum": 1, "maximum": values.MOST_IN_FLIGHT},
            ]
        }
    ),
]


class ReadConfig(Model):
    """Reading from the source."""

    streams: Whole = Field(
        default=4,
        ge=1,
        le=1_000,  # the most that a read session has
        description="Streams read at a time, per destination. More read faster from far away, "
        "and hold more memory.",
    )
    threads: Annotated[int, Field(ge=1, le=64), NO_BOOL] | None = Field(
        default=None,
        description="Threads that encode rows. Left out: one per core.",
    )
    compression: Literal["auto", "lz4", "none"] = Field(
        default="auto",
        description="Compression of rows on their way from BigQuery. LZ4 halves the bytes for "
        "little CPU; `auto` uses it everywhere but on loopback, where it only costs.",
    )
    retry_deadline: Duration = Field(
        default=900.0,
        gt=0,
        description="How long a run goes on retrying BigQuery's Storage Read API when it fails, "
        "counted for each stream from the first failure after its last message, before it stops "
        "with exit code 75. The next run goes on from there.",
    )


class SpoolConfig(Model):
    """Rows on local disk ahead of sending, where sending takes longer than BigQuery waits."""

    dir: Annotated[str, AfterValidator(values.directory)] | None = Field(
        default=None,
        description="Directory for rows of `bigquery` sources that wait to be sent; on a volume "
        "that outlives the process, it is where the next run goes on. It holds row content, and "
        "only its owner may read it. Left out: rows are not spooled.",
    )
    max_bytes: Size = Field(
        default=20 * 10**9,
        ge=100 * 10**6,
        description="The most that the spool of one sync takes. When it is full, reading waits "
        "for rows to be sent.",
    )
    when: Literal["auto", "always"] = Field(
        default="auto",
        description="`auto` spools when, by rows and rate limit, sending would outlast BigQuery's "
        "read session (6 hours); `always` spools every run.",
    )


class RateLimit(Model):
    """The most that is sent to a destination, retries included."""

    requests_per_second: Rate | None = Field(
        default=None,
        description="Requests in any second, over all senders. Left out: no limit. "
        "Customer.io allows 1,000.",
    )
    rows_per_second: Rate | None = Field(
        default=None,
        description="Rows in any second, over all senders; requests are made small enough for it. "
        "Left out: no limit.",
    )
    burst: Whole = Field(
        default=1,
        ge=1,
        description="Requests that may leave at once after a pause, beside the rate; 1 spaces them "
        "evenly, and then no second sees more than the rate.",
    )


class SendConfig(Model):
    """Sending to the destinations; each destination gets all of this for itself."""

    concurrency: Concurrency = Field(
        default="adaptive",
        description="Requests in flight at a time. `adaptive` finds out how many the destination "
        "bears, by its answers; a number stays as it is.",
    )
    max_concurrency: Whole = Field(
        default=64,
        ge=1,
        le=values.MOST_IN_FLIGHT,
        description="The most requests, and connections, that `concurrency: adaptive` may use. "
        "Raise it when the destination answers slowly.",
    )
    rate_limit: RateLimit = Field(default_factory=RateLimit, description=str(RateLimit.__doc__))
    retry_deadline: Duration = Field(
        default=900.0,
        gt=0,
        description="How long a run goes on retrying a destination that fails, counted from the "
        "first failure after its last answer, before it stops with exit code 75. The next run goes "
        "on from there.",
    )
    timeout: Duration = Field(
        default=30.0, gt=0, description="How long one request may take, answer included."
    )
    connect_timeout: Duration = Field(
        default=10.0, gt=0, description="How long connecting may take."
    )
    read_timeout: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None,
        description="How long the destination may send nothing at all, once it has the request. "
        "Left out: as long as `timeout`.",
    )
    compression: Literal["none", "gzip"] = Field(
        default="none",
        description="Compression of request bodies. `gzip` sends a fifth of the bytes for about a "
        "fifth more CPU.",
    )
    buffer_bytes: Size = Field(
        default=64 * 10**6,
        ge=10**6,
        description="Bytes that may be encoded and not settled yet. Reading waits when it is "
        "full, so memory stays flat.",
    )

    @property
    def most_in_flight(self) -> int:
        """Requests, and so connections, at a time at most."""
        return self.concurrency if isinstance(self.concurrency, int) else self.max_concurrency


class HttpConfig(Model):
    """HTTP to the destinations; nothing of it comes from the environment's proxy variables."""

    ca_file: Text | None = Field(
        default=None,
        description="File of certificates (PEM) of authorities to trust beside the system's, such "
        "as a company's own. TLS is verified always.",
    )
    proxy: Annotated[SecretStr, AfterValidator(addresses.proxy)] | None = Field(
        default=None,
        description="URL of a proxy to reach the destinations through, with user and password if "
        "it wants them: `http://user:password@proxy.example.com:3128`, normally `${PROXY_URL}`. "
        "It tunnels, so that TLS ends at the destination. Not used for loopback.",
    )
    allowed_hosts: Annotated[list[str], AfterValidator(addresses.hosts)] = Field(
        default_factory=list,
        description="The only hosts that anything may be sent to, whatever the destinations say: "
        "`cdp.customer.io`, `*.example.com`. Left out: those of the destinations.",
    )


class MetricsConfig(Model):
    """Prometheus metrics, served while `retl run` works."""

    port: Annotated[int, Field(ge=0, le=65_535), NO_BOOL] | None = Field(
        default=None,
        description="Port of `/metrics`; 0 takes a free one. Left out: not served.",
    )
    host: Text = Field(
        default="0.0.0.0",  # noqa: S104 - a scraper comes from outside; nothing secret is served
        description="Address to listen on. `127.0.0.1` keeps it to this machine.",
    )


class RetentionConfig(Model):
    """How long the history is kept. Deleted, a little at a time, at the end of each run."""

    runs: Duration = Field(
        default=90 * 86_400.0,
        description="How long ended runs are kept, with their reports. The last 100 of each sync, "
        "its last complete one, and any with dead letters are kept in any case.",
    )
    dead_letters: Duration = Field(
        default=90 * 86_400.0,
        description="How long dead letters are kept, from the moment they became one.",
    )


class LogConfig(Model):
    """Logging, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe messages to show."
    )
    format: Literal["text", "json"] = Field(
        default="text", description="`text` for people, `json` (one object per line) for machines."
    )
