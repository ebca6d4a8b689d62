"""The seams of the engine, as Protocols: what a source, destination, transport or store must keep.

Implementations live in the rooms below `run`; only `wiring` names them. Every comment here is a
contract that the tests of each implementation hold.
"""

from __future__ import annotations

from pipeline.ports.letters import (
    EVERY_LETTER,
    DeadLetterRecord,
    LetterFilter,
    LetterStore,
    Obstacle,
    OpenReplay,
    ReasonCount,
    ReplayCount,
)
from pipeline.ports.runs import OpenRun, RunStore, Settlements
from pipeline.ports.shards import ALL, ALONE, WHOLE, Shard, ShardState, Share, Standing
from pipeline.ports.stages import (
    Deliverer,
    Destination,
    DryRun,
    Encoder,
    Frame,
    Observer,
    Source,
    Transport,
)
from pipeline.ports.store import Imported, Pruned, RunDetail, RunRecord, Store, SyncState

__all__ = [
    "ALL",
    "ALONE",
    "EVERY_LETTER",
    "WHOLE",
    "DeadLetterRecord",
    "Deliverer",
    "Destination",
    "DryRun",
    "Encoder",
    "Frame",
    "Imported",
    "LetterFilter",
    "LetterStore",
    "Observer",
    "Obstacle",
    "OpenReplay",
    "OpenRun",
    "Pruned",
    "ReasonCount",
    "ReplayCount",
    "RunDetail",
    "RunRecord",
    "RunStore",
    "Settlements",
    "Shard",
    "ShardState",
    "Share",
    "Source",
    "Standing",
    "Store",
    "SyncState",
    "Transport",
]
