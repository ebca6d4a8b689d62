"""What is moved, as typed, frozen values: `syncs` of the configuration, and what is in them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

from pipeline.config import values
from pipeline.config.base import Model, Text
from pipeline.config.faults import wrong
from pipeline.config.units import Duration
from pipeline.model import Call
from pipeline.source import parameters

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
            "BIGNUMERIC",
            "BYTES",
            "TIME",
            "INTERVAL",
            "JSON",
            "STRUCT",
            "RANGE<DATE>",
            "RANGE<DATETIME>",
            "RANGE<TIMESTAMP>",
        ]
        | None
    ) = Field(
        default=None,
        description="BigQuery's type; of a list, that of its elements. "
        "Left out: STRING, INT64, FLOAT64 or BOOL, as the value is written.",
    )
    value: JsonValue = Field(
        description="The value, or a list of values for an ARRAY. Times in ISO 8601, NUMERIC and "
        'BIGNUMERIC in quotes, BYTES in base64, INTERVAL as "Y-M D H:M:S", JSON as its text or a '
        "mapping; STRUCT as a mapping of its fields, each like a parameter; RANGE as its `start` "
        "and `end`, null for unbounded, and neither in a list nor in a STRUCT. Null is the NULL "
        "of the `type`, but for STRUCT and RANGE."
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
