"""bigquery-reverse-etl: rows out of BigQuery into Customer.io, fast, and none of them lost.

from pipeline import load_config, run_sync

report = asyncio.run(run_sync(load_config(), "users"))
"""

from __future__ import annotations

# Not `typing.TYPE_CHECKING`, for type checkers the same: `retl` has to hear signals before it
# imports anything that takes a while.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pipeline.config import Config, load_config
    from pipeline.errors import (
        ConfigError,
        CredentialsError,
        DestinationError,
        PipelineError,
        SourceError,
        StateError,
        TooManyRejected,
    )
    from pipeline.run.report import Preview, RunReport
    from pipeline.wiring import preview_sync, run_sync

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
    **dict.fromkeys((name for name in __all__ if name.endswith("Error")), "pipeline.errors"),
    "TooManyRejected": "pipeline.errors",
    "Config": "pipeline.config",
    "load_config": "pipeline.config",
    "Preview": "pipeline.run.report",
    "RunReport": "pipeline.run.report",
    "preview_sync": "pipeline.wiring",
    "run_sync": "pipeline.wiring",
}


def __getattr__(name: str) -> Any:
    """Load each part when it is asked for: `retl --help` needs none of the engine."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - as lazy as the rest

    return getattr(import_module(_ROOMS[name]), name)
