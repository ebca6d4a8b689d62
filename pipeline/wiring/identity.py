"""Which sync is meant, what an open run depends on, and what we tell servers we are."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version

from pipeline.config import Config, DestinationSettings, SyncConfig
from pipeline.errors import ConfigError

# What a run does not depend on: changing it lets an open run go on.
_FREE_TO_CHANGE = {"description", "tags", "max_rejected", "query_file"}


def user_agent() -> str:
    """What we tell servers we are."""
    try:
        return f"bigquery-reverse-etl/{version('bigquery-reverse-etl')}"
    except PackageNotFoundError:  # run from a source tree that was not installed
        return "bigquery-reverse-etl"


def sync_named(config: Config, name: str) -> SyncConfig:
    """The sync of that name. Raises ConfigError for an unknown one."""
    if name not in config.syncs:
        known = ", ".join(config.syncs)
        raise ConfigError(f"There is no sync {name}. There are: {known}.")
    return config.syncs[name]


def place_of(settings: DestinationSettings) -> dict[str, object]:
    """Where a destination's rows go, and as what."""
    return settings.model_dump(mode="json", include=set(settings.PLACE))


def fingerprint(config: Config, sync: SyncConfig) -> str:
    """What must stay the same for an open run to go on; no secret is part of it."""
    source = config.sources[sync.source]
    text = json.dumps(
        {
            "destinations": {
                name: place_of(config.destinations[name]) for name in sync.destinations
            },
            "sync": sync.model_dump(mode="json", exclude=_FREE_TO_CHANGE),
            "source": source.model_dump(mode="json", include={"type", "project", "path"}),
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()
