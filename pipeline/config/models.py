"""The configuration as typed, frozen values, each key with its description.

Rules, here and in the modules of its parts: unknown keys are refused, secrets are SecretStr,
defaults are those that suit most, and a key that is present but empty counts as left out if it has
a default. The descriptions are what `retl schema` and docs/configuration.md show. Knows no YAML, no
file and no environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr, StringConstraints, model_validator

from pipeline.config import addresses, checks
from pipeline.config.base import Model
from pipeline.config.destinations import AnyDestination
from pipeline.config.faults import wrong
from pipeline.config.letters import DeadLettersConfig
from pipeline.config.sections import (
    HttpConfig,
    LogConfig,
    MetricsConfig,
    ReadConfig,
    RetentionConfig,
    SendConfig,
    SpoolConfig,
)
from pipeline.config.sources import AnySource
from pipeline.config.syncs import SyncConfig
from pipeline.config.units import Duration
from pipeline.ports import WHOLE, Shard

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


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
    state: Annotated[str, AfterValidator(addresses.state)] = Field(
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
    _shard: Shard = PrivateAttr(default=WHOLE)

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

    @property
    def shard(self) -> Shard:
        """Which of the processes that share each run this one is; by the environment."""
        return self._shard

    def located(self, directory: Path, shard: Shard = WHOLE) -> Self:
        """The same, with its relative paths relative to `directory`, for a process of a Job."""
        copy = self.model_copy()
        copy._shard = shard  # noqa: SLF001 - its own class
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
