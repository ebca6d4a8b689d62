"""What the Store needs of a database; sqlite.py and postgres.py are the two that there are.

All that is one dialect's own is behind this: transactions, clock, locks, and what its errors mean.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import sqlalchemy as sa

from pipeline.errors import StateError, UnusableState

_T = TypeVar("_T")
_P = ParamSpec("_P")


class ConnectionLost(StateError):
    """The transaction is undone, and the same again may succeed in a moment."""


class ReadOnly(UnusableState):
    """No writes are taken here: never by a replica, not yet by one that is becoming primary."""


class Database(Protocol):
    """A place of tables. Safe to use from several threads."""

    @property
    def name(self) -> str:
        """What to call it in messages; never with a password."""

    def read(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that sees one moment and changes nothing. Translates errors."""

    def write(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that is durable on a clean exit, and else undone. Translates errors.

        Either excludes other writers, or leaves it to the row of a lease: see leases.py.
        """

    def now(self, connection: sa.Connection) -> float:
        """Unix seconds, by the one clock that all who share the state go by."""

    def guard(self, connection: sa.Connection) -> None:
        """Let one process at a time change the tables, until the transaction ends."""

    def check(self, connection: sa.Connection) -> None:
        """Find out now what would fail in the middle of a run. Raises UnusableState."""

    def patiently(self, transaction: Callable[[], _T]) -> _T:
        """Do a whole transaction, anew when its connection was lost, for a while."""

    def close(self) -> None:
        """Release connections; idempotent."""


class HasDatabase(Protocol):
    """What `patiently` can be put on methods of."""

    _database: Database


_Self = TypeVar("_Self", bound=HasDatabase)


def patiently(
    method: Callable[Concatenate[_Self, _P], _T],
) -> Callable[Concatenate[_Self, _P], _T]:
    """Of a method that is one transaction: done anew when the connection was lost."""

    @wraps(method)
    def again(self: _Self, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._database.patiently(lambda: method(self, *args, **kwargs))

    return again
