"""The first rows of a sync's query, and the JSON that would be sent."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from secrets import token_hex

import pyarrow as pa

from pipeline.config import Config
from pipeline.encode.encoder import CallEncoder
from pipeline.model import Span
from pipeline.ports import Destination
from pipeline.run.report import Preview, PreviewRow
from pipeline.wiring.encoders import make_encoder
from pipeline.wiring.identity import sync_named
from pipeline.wiring.routes import make_destination
from pipeline.wiring.sources import open_source
from pipeline.wiring.state import next_window


async def preview_sync(config: Config, name: str, *, rows: int = 10, full: bool = False) -> Preview:
    """The first rows of a sync's query, and the JSON that would be sent. Sends nothing.

    full: of everything instead of what changed.
    Raises ConfigError, SourceError, CredentialsError, StateError.
    """
    sync = sync_named(config, name)
    window = await asyncio.to_thread(next_window, config, name)
    if full:
        window = replace(window, start=0)
    async with open_source(config, name, sync) as source:
        scan = await source.dry_run(window)
        table = await source.preview(window, rows, f"preview-{name}-{token_hex(8)}")
        destination = make_destination(config, sync.destinations[0])
        return Preview(
            sync=name,
            call=sync.call,
            sql=source.sql(window),
            window=window,
            bytes_processed=scan.bytes_processed,
            table=table,
            rows=preview_rows(
                make_encoder(config, name, destination, window, table.schema), table, destination
            ),
        )


def preview_rows(
    encoder: CallEncoder, table: pa.Table, destination: Destination
) -> tuple[PreviewRow, ...]:
    """Every row of `table`, as payload or as invalid, in order."""
    rows: dict[int, PreviewRow] = {}
    first, now = 0, time.time()
    for batch in table.to_batches():
        span = Span(stream=0, first=first, rows=batch.num_rows)
        payloads = encoder.encode(batch, span)
        for index in range(len(payloads)):
            start, stop = payloads.offsets[index], payloads.offsets[index + 1] - 1
            payload = bytes(payloads.data[start:stop])
            rows[payloads.row(index)] = PreviewRow(
                payload=payload, invalid=None, warnings=destination.warnings(payload, now)
            )
        for letter in payloads.invalid:
            rows[letter.row] = PreviewRow(payload=letter.payload, invalid=letter)
        first = span.end
    return tuple(rows[row] for row in sorted(rows))
