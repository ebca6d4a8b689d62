"""The state store, and the window that a sync would get."""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing
from pathlib import Path
from secrets import token_hex

from pipeline.checkpoint.store import SqlStore
from pipeline.config import Config
from pipeline.model import Window
from pipeline.ports import Store


def open_store(config: Config) -> Store:
    """The state. Blocking. Raises StateError when it can't be read and written."""
    holder = f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"
    return SqlStore(config.state_url, holder=holder, now=time.time)


def next_window(config: Config, name: str) -> Window:
    """The window that the next run would get; looking makes no state where there is none."""
    if not config.state_path.exists():
        return Window(start=0, sequence=1)
    with closing(open_store(config)) as store:
        return store.window(name)


def existing(path: Path) -> Path:
    """The path, or the nearest of its folders that exists."""
    return next((one for one in (path, *path.parents) if one.exists()), path)
