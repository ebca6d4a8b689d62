"""The version of the state's tables, and the steps that bring older ones to it.

A released step is never edited, and does not use the tables of schema.py, which go on changing.
A new state is made from those, so both ways come to the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sqlalchemy as sa

from pipeline.checkpoint.schema import LEASES, META, METADATA, NUMBER, RUNS
from pipeline.errors import UnusableState

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
        sa.Column("id", NUMBER, primary_key=True),
        sa.Column("run", sa.Text, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("report", sa.Text, nullable=False),
    )
    sa.Index("reports_by_run", reports.c.run)
    reports.create(connection)


def _kept(connection: sa.Connection) -> None:
    """Dead letters of which less than the payload is kept, or that are encrypted."""
    for column in ("kept TEXT DEFAULT 'full' NOT NULL", "sealed BOOLEAN DEFAULT FALSE NOT NULL"):
        connection.exec_driver_sql(f"ALTER TABLE dead_letters ADD COLUMN {column}")


def _shards(connection: sa.Connection) -> None:
    """Runs that several processes share."""
    for column in ("job TEXT", "shards INTEGER DEFAULT 1 NOT NULL"):
        connection.exec_driver_sql(f"ALTER TABLE runs ADD COLUMN {column}")
    then = sa.MetaData()
    sa.Table("runs", then, sa.Column("id", sa.Text, primary_key=True))  # what is referred to
    shards = sa.Table(
        "shards",
        then,
        sa.Column("run", sa.Text, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("holder", sa.Text),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sa.Column("starts", sa.Boolean, nullable=False),
        sa.Column("done", sa.Boolean, nullable=False),
        sa.Column("counts", sa.Text, nullable=False),
    )
    shards.create(connection)
    jobs = sa.Table(
        "jobs",
        then,
        sa.Column("sync", sa.Text, primary_key=True),
        sa.Column("job", sa.Text, primary_key=True),
        sa.Column("run", sa.Text, sa.ForeignKey("runs.id"), nullable=False),
    )
    jobs.create(connection)


# STEPS[0] brings version 1 to version 2, and so on.
STEPS: Sequence[Step] = (_two, _reports, _kept, _shards)


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
