from __future__ import annotations

from local_system import system
from postgres import postgres
from stores import store, stores

__all__ = ["postgres", "store", "stores", "system"]
