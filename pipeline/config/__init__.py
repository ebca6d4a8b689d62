"""Configuration: retl.yml and the environment, read into frozen, typed values.

`load_config` finds every fault at once; the models are what the rest of the engine sees.
"""

from __future__ import annotations

from pipeline.config.environment import SHORT_NAMES
from pipeline.config.example import EXAMPLE
from pipeline.config.load import load_config
from pipeline.config.models import (
    AnyDestination,
    AnySource,
    BigQuerySource,
    ColumnConfig,
    Config,
    CustomerioDestination,
    FileDestination,
    FileSource,
    LogConfig,
    MetricsConfig,
    RateLimit,
    ReadConfig,
    SendConfig,
    SyncConfig,
)
from pipeline.config.schema import json_schema

__all__ = [
    "EXAMPLE",
    "SHORT_NAMES",
    "AnyDestination",
    "AnySource",
    "BigQuerySource",
    "ColumnConfig",
    "Config",
    "CustomerioDestination",
    "FileDestination",
    "FileSource",
    "LogConfig",
    "MetricsConfig",
    "RateLimit",
    "ReadConfig",
    "SendConfig",
    "SyncConfig",
    "json_schema",
    "load_config",
]
