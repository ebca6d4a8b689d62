"""A sync's encoder, for one destination and schema."""

from __future__ import annotations

import pyarrow as pa

from pipeline.config import BigQuerySource, Config
from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import ColumnRule, Rules
from pipeline.model import Window
from pipeline.ports import Destination


def make_encoder(
    config: Config, name: str, destination: Destination, window: Window, schema: pa.Schema
) -> CallEncoder:
    """The encoder of a sync's call for rows of `schema`. Raises ConfigError if they don't fit."""
    sync = config.syncs[name]
    return CallEncoder(
        sync=name,
        call=sync.call,
        window=window,
        schema=schema,
        rules=Rules(
            columns={
                column: ColumnRule(to=rule.to, form=rule.form) if rule else None
                for column, rule in sync.columns.items()
            },
            json_columns=sync.json_columns,
            constants=sync.constants,
            times=sync.times,
            omit_nulls=sync.nulls == "omit",
            trusted_json=isinstance(config.sources[sync.source], BigQuerySource),
        ),
        separator=destination.envelope.separator,
        payload_bytes=destination.limits.payload_bytes,
        id_bytes=destination.limits.id_bytes,
        message_id_chars=destination.limits.message_id_chars,
        users=sync.is_ordered,
    )
