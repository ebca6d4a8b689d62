"""The tables of the state, their migrations, and how values are kept in them.

Only types and constraints that SQLite and Postgres both have. A released step of STEPS is never
edited: a change of the tables is a change here plus a step that brings older states to the same
shape. It does not know of leases, windows or files.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pipeline.errors import UnusableState
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
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")

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
    sa.Column("number", _NUMBER, primary_key=True),  # in the order of opening
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
    sa.Column("id", _NUMBER, primary_key=True),
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
    sa.Column("id", _NUMBER, primary_key=True),  # in the order of writing
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

# By these a state is known, of whatever version.
_OURS = frozenset({META.name, RUNS.name, LEASES.name})

Step = Callable[[sa.Connection], None]


def _two(connection: sa.Connection) -> None:
    """Runs that read the result of an earlier run's query."""
    for column in ("query_key", "done"):
        connection.exec_driver_sql(f"ALTER TABLE runs ADD COLUMN {column} TEXT")


def _reports(connection: sa.Connection) -> None:
    """The reports of runs."""
    then = sa.MetaData()
    sa.Table("runs", then, sa.Column("id", sa.Text, primary_key=True))  # what is referred to
    reports = sa.Table(
        "reports",
        then,
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("run", sa.Text, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("report", sa.Text, nullable=False),
    )
    sa.Index("reports_by_run", reports.c.run)
    reports.create(connection)


def _kept(connection: sa.Connection) -> None:
    """Dead letters of which less than the payload is kept, or that are encrypted."""
    for column in ("kept TEXT DEFAULT 'full' NOT NULL", "sealed BOOLEAN DEFAULT FALSE NOT NULL"):
        connection.exec_driver_sql(f"ALTER TABLE dead_letters ADD COLUMN {column}")


# STEPS[0] brings version 1 to version 2, and so on.
STEPS: Sequence[Step] = (_two, _reports, _kept)


def is_current(connection: sa.Connection, where: str, steps: Sequence[Step] = STEPS) -> bool:
    """Whether the tables are as this version needs them.

    where: what to call the state in an error.
    Raises UnusableState when they are newer, or another program's.
    """
    found, known = _version(connection, where), 1 + len(steps)
    if found > known:
        raise UnusableState(
            f"{where} was written by a newer retl (state version {found}, this one knows "
            f"{known}): upgrade retl."
        )
    return found == known


def migrate(connection: sa.Connection, where: str, steps: Sequence[Step] = STEPS) -> None:
    """Bring the tables to the newest version, within the connection's write transaction.

    Raises what `is_current` raises.
    """
    if is_current(connection, where, steps):
        return
    found = _version(connection, where)
    if found == 0:
        # Without looking: tables of another schema may be in sight.
        METADATA.create_all(connection, checkfirst=False)
    else:
        for step in steps[found - 1 :]:
            step(connection)
    connection.execute(sa.delete(META))
    connection.execute(sa.insert(META).values(version=1 + len(steps)))


def has_tables(connection: sa.Connection) -> bool:
    """Whether the tables were made, of whatever version."""
    return _OURS.issubset(_tables(connection))


def _tables(connection: sa.Connection) -> list[str]:
    inspector = sa.inspect(connection)
    # Without a schema, Postgres would name the tables of all that are searched.
    return inspector.get_table_names(schema=inspector.default_schema_name)


def _version(connection: sa.Connection, where: str) -> int:
    """The version of the tables; 0 when there are none yet."""
    tables = _tables(connection)
    if not tables:
        return 0
    if not _OURS.issubset(tables):
        raise UnusableState(
            f"{where} holds another program's tables: let `state` name a file, or a database or "
            "schema, of its own."
        )
    return connection.scalar(sa.select(META.c.version)) or 0


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
    kept["schema"] = base64.b64decode(kept["schema"])
    return Reading(**kept)


def dump_counts(counts: Mapping[str, Counts]) -> str:
    """As JSON: destination -> its counts."""
    return json.dumps({destination: asdict(each) for destination, each in counts.items()})


def load_counts(text: str) -> dict[str, Counts]:
    """The counts that `dump_counts` was given."""
    return {destination: Counts(**each) for destination, each in json.loads(text).items()}
