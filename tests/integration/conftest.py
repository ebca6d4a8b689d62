from __future__ import annotations

from local_system import system

__all__ = ["system"]
