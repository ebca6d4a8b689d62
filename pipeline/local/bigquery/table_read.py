"""What the Storage Read API refuses of a table that is named by hand: views, and times it has not.

DuckDB keeps no history: a table can be read as of any moment since its last change, and for an
earlier one there is a refusal that says so, never other rows. Knows no gRPC.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from pipeline.local.bigquery.catalog import Catalog
from pipeline.local.bigquery.errors import LocalError, unsupported
from pipeline.local.bigquery.sql import TableName


def check(catalog: Catalog, name: TableName, snapshot_time: float | None) -> None:
    """Raises LocalError. snapshot_time: Unix seconds; None: as the table is now."""
    if catalog.kind(name) == "VIEW":
        raise LocalError(
            "invalid", f"request failed: {name} is of type VIEW, which can't be read directly"
        )
    if snapshot_time is None:
        return
    at = datetime.fromtimestamp(snapshot_time, UTC).isoformat()
    if snapshot_time > time.time():
        raise LocalError("invalid", f"request failed: snapshot_time {at} is in the future")
    if snapshot_time < catalog.modified(name):
        raise unsupported(f"a snapshot_time ({at}) from before the last change of {name}")
