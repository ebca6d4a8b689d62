"""Configuration to real objects: the only room that names adapters."""

from pipeline.wiring.identity import user_agent
from pipeline.wiring.preview import preview_sync
from pipeline.wiring.replay import replay_letters
from pipeline.wiring.run import run_sync
from pipeline.wiring.state import open_store

__all__ = ["open_store", "preview_sync", "replay_letters", "run_sync", "user_agent"]
