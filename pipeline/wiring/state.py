"""The state store, the window that a sync would get, and whether the state's file lasts."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from secrets import token_hex

from pipeline.checkpoint.keeping import Keeper
from pipeline.checkpoint.places import is_made
from pipeline.checkpoint.store import SqlStore
from pipeline.checkpoint.volume import ephemeral, file_system, in_container
from pipeline.config import Config
from pipeline.model import Window
from pipeline.ports import Store

_MOUNTS = Path("/proc/self/mounts")


def open_store(config: Config) -> Store:
    """The state. Blocking.

    Raises StateError when it can't be read and written, CredentialsError when its server refuses
    us, ConfigError when Postgres' driver is not installed.
    """
    holder = f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"
    keeper = Keeper(config.dead_letters.payload, config.dead_letters.keys)
    return SqlStore(config.state_url, holder=holder, keeper=keeper)


def next_window(config: Config, name: str) -> Window:
    """The window that the next run would get; looking makes no state where there is none."""
    if not is_made(config.state_url):
        return Window(start=0, sequence=1)
    with closing(open_store(config)) as store:
        return store.window(name)


def existing(path: Path) -> Path:
    """The path, or the nearest of its folders that exists."""
    return next((one for one in (path, *path.parents) if one.exists()), path)


def file_system_below(
    path: Path,
    env: Mapping[str, str],
    *,
    mounts: Callable[[], str] = lambda: _MOUNTS.read_text(encoding="utf-8"),
    contained: Callable[[Mapping[str, str]], bool] = in_container,
) -> str | None:
    """The kind of file system that a path is, or will be, on; None outside of a container."""
    if not contained(env):
        return None
    try:
        return file_system(existing(path).resolve(), mounts())
    except OSError:
        return ""


def vanishing(config: Config, env: Mapping[str, str]) -> str:
    """What to warn of when the state's file ends with the container it is used in; else ""."""
    path = config.state_path
    place = "" if path is None else ephemeral(file_system_below(path, env) or "")
    if not place:
        return ""
    return (
        f"State {path} is on {place}, which ends with the container: the next run would send "
        "everything again. Mount a persistent volume there, or let `state` name a Postgres."
    )
