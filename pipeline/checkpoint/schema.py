"""The tables of the state, and how values are kept in them.

Only types and constraints that SQLite and Postgres both have. A change of the tables is a change
here plus a step of migrations.py. It does not know of leases, windows or files.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, fields

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pipeline.model import Counts, Reading

METADATA = sa.MetaData()


class _Words(sa.TypeDecorator[str]):
    """Text of others, such as a server's message: what can't be stored of it is replaced."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        """Postgres takes no NUL in text, and neither database a half of a surrogate pair."""
        if value is None:
            return None
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


# SQLite numbers rows by itself only in a column declared INTEGER.
NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")

META = sa.Table(
    "meta", METADATA, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False)
)

SYNCS = sa.Table(
    "syncs",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("last_sync_time", sa.BigInteger, nullable=False),  # Unix seconds
    sa.Column("sequence", sa.BigInteger, nullable=False),  # runs completed
)

RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("number", NUMBER, primary_key=True),  # in the order of opening
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("sync", sa.Text, sa.ForeignKey(SYNCS.c.name), nullable=False),
    sa.Column("window_start", sa.BigInteger, nullable=False),
    sa.Column("window_sequence", sa.BigInteger, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("unfinished", sa.Boolean, nullable=False),  # the next begin may go on with it
    sa.Column("started", sa.Double, nullable=False),
    sa.Column("finished", sa.Double),
    sa.Column("result", sa.Text),
    sa.Column("error", _Words, nullable=False),
    sa.Column("reading", sa.Text),
    sa.Column("counts", sa.Text, nullable=False),
    sa.Column("query_key", sa.Text),  # NULL: its own id
    sa.Column("done", sa.Text),  # JSON, names of destinations; NULL: none
    sa.Column("job", sa.Text),  # whose processes share it; NULL: one process has it alone
    sa.Column("shards", sa.Integer, nullable=False, server_default=sa.text("1")),  # of the job
)
sa.Index("runs_by_sync", RUNS.c.sync, RUNS.c.number)
sa.Index(
    "runs_one_unfinished",
    RUNS.c.sync,
    unique=True,
    sqlite_where=RUNS.c.unfinished,
    postgresql_where=RUNS.c.unfinished,
)

CHECKPOINTS = sa.Table(
    "checkpoints",
    METADATA,
    sa.Column("run", sa.Text, sa.ForeignKey(RUNS.c.id), primary_key=True),
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("stream", sa.Integer, primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
)

DEAD_LETTERS = sa.Table(
    "dead_letters",
    METADATA,
    sa.Column("id", NUMBER, primary_key=True),
    sa.Column("run", sa.Text, sa.ForeignKey(RUNS.c.id), nullable=False),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("stream", sa.Integer, nullable=False),
    sa.Column("row", sa.BigInteger, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("reason", _Words, nullable=False),
    sa.Column("message", _Words, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("kept", sa.Text, nullable=False, server_default=sa.text("'full'")),
    sa.Column("sealed", sa.Boolean, nullable=False, server_default=sa.text("FALSE")),  # encrypted
    sa.UniqueConstraint("run", "destination", "stream", "row"),
)
# The summary reads this and never the payloads.
sa.Index(
    "dead_letters_by_reason",
    DEAD_LETTERS.c.run,
    DEAD_LETTERS.c.destination,
    DEAD_LETTERS.c.reason,
)

REPORTS = sa.Table(
    "reports",
    METADATA,
    sa.Column("id", NUMBER, primary_key=True),  # in the order of writing
    sa.Column("run", sa.Text, sa.ForeignKey(RUNS.c.id), nullable=False),
    sa.Column("report", sa.Text, nullable=False),  # JSON, of one process
)
sa.Index("reports_by_run", REPORTS.c.run)

LEASES = sa.Table(
    "leases",
    METADATA,
    sa.Column("sync", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text),  # NULL: nobody
    sa.Column("epoch", sa.BigInteger, nullable=False),  # grows whenever the lease is taken
    sa.Column("expires", sa.Double, nullable=False),
)

# Of a run that is shared, while it is. Its counts are beside those of RUNS: see shards.py.
SHARDS = sa.Table(
    "shards",
    METADATA,
    sa.Column("run", sa.Text, sa.ForeignKey(RUNS.c.id), primary_key=True),
    sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("holder", sa.Text),  # NULL: nobody
    sa.Column("epoch", sa.BigInteger, nullable=False),  # grows whenever its lease is taken
    sa.Column("expires", sa.Double, nullable=False),
    sa.Column("starts", sa.Boolean, nullable=False),  # it starts the source
    sa.Column("done", sa.Boolean, nullable=False),  # every row of its streams is settled
    sa.Column("counts", sa.Text, nullable=False),
)

# The run that a Job's processes share: its last attempt. Kept when others go on with that run.
JOBS = sa.Table(
    "jobs",
    METADATA,
    sa.Column("sync", sa.Text, primary_key=True),
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("run", sa.Text, sa.ForeignKey(RUNS.c.id), nullable=False),
)


def upsert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that takes on_conflict_do_nothing and on_conflict_do_update."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def dump_reading(reading: Reading) -> str:
    """As JSON, all of it, with the schema in base64."""
    kept = {field.name: getattr(reading, field.name) for field in fields(reading)}
    kept["schema"] = base64.b64encode(reading.schema).decode("ascii")
    kept["details"] = dict(reading.details)
    return json.dumps(kept)


def load_reading(text: str) -> Reading:
    """The Reading that `dump_reading` was given."""
    kept = json.loads(text)
    kept["streams"] = tuple(kept["streams"])
    kept["columns"] = tuple(kept.get("columns", ()))
    kept["schema"] = base64.b64decode(kept["schema"])
    return Reading(**kept)


def dump_counts(counts: Mapping[str, Counts]) -> str:
    """As JSON: destination -> its counts."""
    return json.dumps({destination: asdict(each) for destination, each in counts.items()})


def load_counts(text: str) -> dict[str, Counts]:
    """The counts that `dump_counts` was given."""
    return {destination: Counts(**each) for destination, each in json.loads(text).items()}
