"""Configuration: retl.yml and the environment, read into frozen, typed values.

`load_config` finds every fault at once; the models are what the rest of the engine sees.
"""

from __future__ import annotations

from pipeline.config.base import DestinationSettings, HttpEndpoint
from pipeline.config.destinations import (
    AnyDestination,
    CustomerioDestination,
    FileDestination,
    RudderstackDestination,
    SegmentDestination,
    WebhookDestination,
)
from pipeline.config.environment import SHORT_NAMES
from pipeline.config.example import EXAMPLE
from pipeline.config.load import load_config
from pipeline.config.models import Config
from pipeline.config.plugins import DestinationKind
from pipeline.config.schema import json_schema
from pipeline.config.sections import LogConfig, MetricsConfig, RateLimit, ReadConfig, SendConfig
from pipeline.config.sources import AnySource, BigQuerySource, FileSource
from pipeline.config.syncs import ColumnConfig, SyncConfig

__all__ = [
    "EXAMPLE",
    "SHORT_NAMES",
    "AnyDestination",
    "AnySource",
    "BigQuerySource",
    "ColumnConfig",
    "Config",
    "CustomerioDestination",
    "DestinationKind",
    "DestinationSettings",
    "FileDestination",
    "FileSource",
    "HttpEndpoint",
    "LogConfig",
    "MetricsConfig",
    "RateLimit",
    "ReadConfig",
    "RudderstackDestination",
    "SegmentDestination",
    "SendConfig",
    "SyncConfig",
    "WebhookDestination",
    "json_schema",
    "load_config",
]
