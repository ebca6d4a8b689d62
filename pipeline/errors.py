"""Every error of the engine, one base class, subclassed by whose fault it is.

A message says what happened, where (YAML path, sync, column, host), and what to do next.
It never carries a secret or row content. Foreign exceptions are translated into these once,
at the edge that meets them. Exit codes are those of sysexits.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PipelineError(Exception):
    """Base of all errors; by itself: our own fault."""

    exit_code = 70


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a configuration: where (a YAML path), what, and the remedy."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} {self.remedy}".rstrip()


class ConfigError(PipelineError):
    """The user's configuration, SQL or columns can't work as they are."""

    exit_code = 78

    def __init__(self, faults: str | Sequence[Fault]) -> None:
        self.faults: tuple[Fault, ...] = () if isinstance(faults, str) else tuple(faults)
        text = faults if isinstance(faults, str) else "\n".join(str(fault) for fault in faults)
        super().__init__(text)


class SourceError(PipelineError):
    """The source failed for now (network, quota, outage); running again may succeed."""

    exit_code = 75


class BrokenFrame(SourceError):
    """What came can't be decoded; the same rows, read once more, may come whole."""


class ReadingExpired(SourceError):
    """What a run was reading is gone: an expired session. What it reads from may be there yet."""


class ResultExpired(ReadingExpired):
    """The query's result is gone too: the query has to run again."""


class DestinationError(PipelineError):
    """A destination failed for now, or refused in a way that is no single row's fault."""

    exit_code = 75


class DestinationRefused(DestinationError):
    """A destination refuses the request as such: a wrong endpoint, not a row or an outage."""

    exit_code = 78


class CredentialsError(PipelineError):
    """Source, destination or state refused who we are, or what we are allowed to do."""

    exit_code = 77


class StateError(PipelineError):
    """The state store can't be read or written."""

    exit_code = 75


class UnusableState(StateError):
    """The state can't be used until somebody sets it right: waiting does not help."""

    exit_code = 78


class LeaseError(StateError):
    """Another run of this sync is under way, or took over."""


class ShardHeld(LeaseError):
    """Another process has this shard, or had it until a moment ago: it may be free soon."""


class RunMoved(LeaseError):
    """The run goes on as another attempt, or as started by another: look how it stands now."""


class TooManyRejected(PipelineError):
    """More rows were invalid or rejected than the sync allows."""

    exit_code = 65
