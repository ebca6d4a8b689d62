"""bigquery-reverse-etl: rows out of BigQuery into Customer.io, fast, and none of them lost.

from pipeline import load_config, run_sync

report = asyncio.run(run_sync(load_config(), "users"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import Config, load_config
    from pipeline.run.report import Preview, RunReport
    from pipeline.wiring import preview_sync, run_sync

from pipeline.errors import (
    ConfigError,
    CredentialsError,
    DestinationError,
    PipelineError,
    SourceError,
    StateError,
    TooManyRejected,
)

__all__ = [
    "Config",
    "ConfigError",
    "CredentialsError",
    "DestinationError",
    "PipelineError",
    "Preview",
    "RunReport",
    "SourceError",
    "StateError",
    "TooManyRejected",
    "load_config",
    "preview_sync",
    "run_sync",
]

_ROOMS = {
    "Config": "pipeline.config",
    "load_config": "pipeline.config",
    "Preview": "pipeline.run.report",
    "RunReport": "pipeline.run.report",
    "preview_sync": "pipeline.wiring",
    "run_sync": "pipeline.wiring",
}


def __getattr__(name: str) -> Any:
    """Load the engine when it is asked for: `retl --help` needs none of it."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - as lazy as the rest

    return getattr(import_module(_ROOMS[name]), name)
