"""The configuration as typed, frozen values, each key with its description.

Rules: unknown keys are refused, secrets are SecretStr, defaults are those that suit most, and a
key that is present but empty counts as left out if it has a default. The descriptions are what
`retl schema` and docs/configuration.md show. Knows no YAML, no file and no environment.
Longer than others, because the table of keys is easiest to read in one piece.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from pipeline.config import checks, values
from pipeline.config.base import HttpEndpoint, Model, Text
from pipeline.config.destinations import AnyDestination
from pipeline.config.faults import wrong
from pipeline.config.letters import DeadLettersConfig
from pipeline.config.units import NO_BOOL, Duration, Size, Whole
from pipeline.model import Call
from pipeline.source import parameters

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
GrpcEndpoint = Annotated[str, AfterValidator(values.grpc_endpoint)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False), NO_BOOL]
MaxRejected = Annotated[
    int | str | None,
    BeforeValidator(values.max_rejected),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*%\s*$"},
                {"type": "null"},
            ],
            "examples": [100, "0.5%"],
        }
    ),
]

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


class ColumnConfig(Model):
    """What becomes of a column. `NAME: PLACE` is short for `NAME: {to: PLACE}`."""

    to: Annotated[str, AfterValidator(values.place)] | None = Field(
        default=None,
        description="Its new name, or its place with dots: `context.device.id`. "
        "Left out: where the column's own name says.",
    )
    form: Literal["unix", "unix_ms", "iso8601", "string", "number", "json"] | None = Field(
        default=None,
        alias="as",
        description="How its values are written in traits, properties and context. `unix`, "
        "`unix_ms`, `iso8601`: of times, dates (midnight UTC) and Unix seconds, instead of what "
        "`times` says. `string`: any scalar as text. `number`: BOOL as 1 or 0, and STRINGs that "
        "are JSON numbers; a row with another is invalid. `json`: as in `json_columns`. "
        "Ids and other top-level fields are text whatever is said.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.to is None and self.form is None:
            raise wrong("`to` and `as` are both missing.", "Add one, or drop the column by null.")
        return self


Column = Annotated[
    ColumnConfig | None,
    BeforeValidator(values.column, json_schema_input_type=Text | ColumnConfig | None),
]


class ParameterConfig(Model):
    """A value for `@name` in a query. `NAME: VALUE` is short for `NAME: {value: VALUE}`."""

    type: (
        Literal[
            "STRING",
            "INT64",
            "FLOAT64",
            "BOOL",
            "DATE",
            "DATETIME",
            "TIMESTAMP",
            "NUMERIC",
            "BYTES",
        ]
        | None
    ) = Field(
        default=None,
        description="BigQuery's type; of a list, that of its elements. "
        "Left out: STRING, INT64, FLOAT64 or BOOL, as the value is written.",
    )
    value: JsonValue = Field(
        description="The value, or a list of values for an ARRAY. Times in ISO 8601, NUMERIC in "
        "quotes, BYTES in base64; null is the NULL of the `type`."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.as_parameter("")
        return self

    def as_parameter(self, name: str) -> parameters.Parameter:
        """The typed parameter of that name."""
        try:
            return parameters.parameter(name, self.value, self.type)
        except parameters.BadParameter as error:
            what, _, remedy = str(error).partition(": ")
            raise wrong(f"{what}.", f"{remedy[:1].upper()}{remedy[1:]}") from None


Parameter = Annotated[
    ParameterConfig,
    BeforeValidator(values.parameter, json_schema_input_type=JsonValue | ParameterConfig),
]
Variable = Annotated[
    str, BeforeValidator(values.variable, json_schema_input_type=str | int | float)
]


class SyncConfig(Model):
    """A query, the call its rows become, and where they go."""

    description: str = Field(default="", description="What the sync is for, shown by `retl list`.")
    tags: Annotated[list[str], AfterValidator(values.unique)] = Field(
        default_factory=list, description="Words to select syncs by: `retl run --select tag:WORD`."
    )
    source: str = Field(description="Name of the source that the rows come from.")
    call: Call = Field(
        description="What each row becomes; it decides which columns are ids and required."
    )
    destinations: Annotated[list[str], AfterValidator(values.unique)] = Field(
        min_length=1,
        description="Names of the destinations that every row goes to. Each settles on its own.",
    )
    query: str | None = Field(
        default=None,
        description="The SELECT to run, in GoogleSQL. `{{last_sync_time}}` becomes the Unix "
        "seconds at which the last completed run's query started, 0 at first; "
        "`{{last_sync_timestamp}}` the same as a TIMESTAMP. A `bigquery` source needs one of "
        "`query`, `query_file` and `table`; a `file` source takes none.",
    )
    query_file: Text | None = Field(
        default=None,
        description="File that holds the query instead, relative to this file. "
        "`${...}` is not replaced in it.",
    )
    parameters: Annotated[dict[str, Parameter], AfterValidator(values.names)] = Field(
        default_factory=dict,
        description="Values for `@name` in the query, typed and safe whatever they hold: "
        "`plan: pro`, `ids: [1, 2]`, `since: {type: DATE, value: 2026-01-01}`.",
    )
    variables: Annotated[dict[str, Variable], AfterValidator(values.variables)] = Field(
        default_factory=dict,
        description="Text for `{{name}}` in the query or `row_restriction`, for what can be no "
        "parameter, such as part of a table's name: `suffix: 2026_01`. Letters, digits, `_`, `-` "
        "and `.` only.",
    )
    table: Annotated[str, AfterValidator(values.table)] | None = Field(
        default=None,
        description="A table to read without a query: `project.dataset.table`, or `dataset.table` "
        "in the source's project. No view: that takes a `query`.",
    )
    row_restriction: str | None = Field(
        default=None,
        description="Which rows of the `table`: a condition as after WHERE, without aggregates and "
        "subqueries. `{{last_sync_time}}` and the other variables work in it.",
    )
    selected_fields: Annotated[list[str], AfterValidator(values.fields)] = Field(
        default_factory=list,
        description="Which columns of the `table`, and fields of STRUCTs as `column.field`. "
        "Left out: all.",
    )
    snapshot_time: Annotated[datetime, BeforeValidator(values.moment)] | None = Field(
        default=None,
        description="Read the `table` as it was then: `2026-12-01T06:00:00Z`, within BigQuery's "
        "time travel (7 days). Left out: as it is.",
    )
    columns: dict[str, Column] = Field(
        default_factory=dict,
        description="Renames, places or formats columns: `ip_address: context.ip` moves one, "
        "`notes: null` drops one, `signed_up: {as: iso8601}` changes how one is written. "
        "Other columns go where their name says.",
    )
    constants: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="What every row gets, by its place: `event: Order Completed`, "
        "`context.app.name: shop`, `integrations: {All: false}`. Dots separate the parts of a "
        "key; in nested mappings they are part of the name. A place that a column has too is an "
        "error.",
    )
    json_columns: Annotated[list[str], AfterValidator(values.unique)] = Field(
        default_factory=list,
        description="STRING columns that hold JSON, to be sent as objects and not as text. "
        "Columns of type JSON need no mention.",
    )
    times: Literal["unix", "unix_ms", "iso8601"] = Field(
        default="unix",
        description="How times in traits and properties are sent: Unix seconds (what Customer.io "
        "compares dates by), Unix milliseconds, or ISO 8601 text.",
    )
    nulls: Literal["send", "omit"] = Field(
        default="send",
        description="`send` clears an attribute whose column is null; `omit` leaves it as it was.",
    )
    lookback: Duration = Field(
        default=0.0,
        description="How much further back than the last run the query looks, for rows that "
        "arrive late. Rows within it are sent again.",
    )
    ordering: Literal["none", "per_user"] = Field(
        default="none",
        description="`per_user`: rows about one user arrive in the order of the query's result, "
        "never two requests with them at a time. Give the query an ORDER BY; it is read through "
        "one stream. `none` is faster, and right where each user has one row.",
    )
    max_rejected: MaxRejected = Field(
        default=None,
        description="How many rows of a run may be invalid or rejected before it stops with exit "
        'code 65: rows (`100`) or a share of the rows read ("0.5%"). Left out: any number.',
    )

    @property
    def is_ordered(self) -> bool:
        """Whether rows about one user have to stay in order."""
        return self.ordering == "per_user"

    def tolerates(self, rejected: int, read: int) -> bool:
        """Whether `rejected` of `read` rows are no more than `max_rejected`."""
        limit = self.max_rejected
        if limit is None:
            return True
        if isinstance(limit, str):
            return rejected * 100 <= float(limit.removesuffix("%")) * read
        return rejected <= limit


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
    proxy: Annotated[SecretStr, AfterValidator(values.proxy)] | None = Field(
        default=None,
        description="URL of a proxy to reach the destinations through, with user and password if "
        "it wants them: `http://user:password@proxy.example.com:3128`, normally `${PROXY_URL}`. "
        "It tunnels, so that TLS ends at the destination. Not used for loopback.",
    )
    allowed_hosts: Annotated[list[str], AfterValidator(values.hosts)] = Field(
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


class Config(Model):
    """Everything in retl.yml. Relative paths in it are relative to `directory`."""

    SECTIONS: ClassVar[tuple[str, ...]] = ("sources", "destinations", "syncs")
    """The keys that hold named things."""

    version: Literal[1] = Field(description="Version of this file's format: 1.")
    sources: dict[Name, AnySource] = Field(
        min_length=1, description="Where rows come from, by name."
    )
    destinations: dict[Name, AnyDestination] = Field(
        min_length=1, description="Where rows go, by name."
    )
    syncs: dict[Name, SyncConfig] = Field(
        min_length=1, description="What is moved, by name; `retl run NAME` runs one."
    )
    read: ReadConfig = Field(default_factory=ReadConfig, description=str(ReadConfig.__doc__))
    spool: SpoolConfig = Field(default_factory=SpoolConfig, description=str(SpoolConfig.__doc__))
    send: SendConfig = Field(default_factory=SendConfig, description=str(SendConfig.__doc__))
    http: HttpConfig = Field(default_factory=HttpConfig, description=str(HttpConfig.__doc__))
    metrics: MetricsConfig = Field(
        default_factory=MetricsConfig, description=str(MetricsConfig.__doc__)
    )
    log: LogConfig = Field(default_factory=LogConfig, description=str(LogConfig.__doc__))
    drain: Duration = Field(
        default=25.0,
        description="How long SIGTERM or Ctrl-C may take to settle what is in flight. "
        "Keep it under Kubernetes' terminationGracePeriodSeconds (30 s).",
    )
    state: Annotated[str, AfterValidator(values.state)] = Field(
        default="sqlite:///.retl/state.db",
        repr=False,  # it may hold a password
        description="Where windows, runs, Checkpoints and dead letters are kept: `sqlite:///PATH`, "
        "or `postgresql://USER:PASSWORD@HOST/DATABASE` with any options of libpq, normally "
        "`${file:PATH}`, which needs the extra `[postgres]`.",
    )
    retention: RetentionConfig = Field(
        default_factory=RetentionConfig, description=str(RetentionConfig.__doc__)
    )
    dead_letters: DeadLettersConfig = Field(
        default_factory=DeadLettersConfig, description=str(DeadLettersConfig.__doc__)
    )
    _directory: Path = PrivateAttr(default_factory=Path.cwd)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Syncs name what exists. `load_config` reports these faults with their places."""
        found = checks.check(self.model_dump(include=set(self.SECTIONS)))
        if found:
            raise wrong(found[0].what, found[0].remedy)
        return self

    @property
    def directory(self) -> Path:
        """The absolute folder of the file; the working directory for a Config made in code."""
        return self._directory

    def located(self, directory: Path) -> Self:
        """The same, with its relative paths relative to `directory`."""
        copy = self.model_copy()
        copy._directory = directory.absolute()  # noqa: SLF001 - its own class
        return copy

    def resolve(self, path: str) -> str:
        """A path of the configuration made absolute; a URI (`gs://`) stays as it is."""
        return path if "://" in path else str(self.directory / path)

    @property
    def state_path(self) -> Path | None:
        """The file of `state`, absolute; None when it is no file."""
        if not self.state.startswith("sqlite:"):
            return None
        return Path(self.resolve(self.state.removeprefix("sqlite:///")))

    @property
    def state_url(self) -> str:
        """`state` with an absolute path. May hold a password."""
        path = self.state_path
        return self.state if path is None else f"sqlite:///{path}"

    @property
    def state_place(self) -> str:
        """`state_url` without user, password and options, which may change without it moving."""
        if self.state_path is not None:
            return self.state_url
        scheme, _, rest = self.state.partition("?")[0].partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"
