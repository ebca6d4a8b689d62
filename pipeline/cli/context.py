"""What verbs share: the configuration they were given, and the names of its syncs.

Imports the configuration's models, so only verbs import this module, never `app`.
"""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase

import typer

from pipeline.cli.output import plain
from pipeline.config import Config, load_config

TAG = "tag:"


def configured(ctx: typer.Context) -> Config:
    """The configuration named by --config or RETL_CONFIG, or ./retl.yml. Raises ConfigError."""
    return load_config(ctx.obj)


def known_sync(config: Config, name: str) -> str:
    """`name`, when the configuration has such a sync. Raises a usage error with the nearest."""
    if name in config.syncs:
        return name
    near = get_close_matches(name, config.syncs, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(config.syncs)}."
    raise typer.BadParameter(f"there is no sync '{name}'. {hint}", param_hint="SYNC")


def of_whom(config: Config, sync: str | None) -> str:
    """What to add to «none of SYNC»: one that is unknown may be a slip, or gone by now."""
    if sync is None or sync in config.syncs:
        return ""
    known = ", ".join(config.syncs)
    return f"; there is no sync {plain(sync)} in the configuration (there are: {known})"


def chosen_syncs(
    config: Config, names: list[str], select: list[str], *, everything: bool
) -> list[str]:
    """The syncs that a command line names, in the order of the file.

    names: as given, each must exist. select: globs over names, or `tag:T`; each must find
    something. Raises a usage error when nothing or too much is asked for.
    """
    if everything and (names or select):
        raise typer.BadParameter("leave out names and --select, or --all.", param_hint="--all")
    if not (everything or names or select):
        raise typer.BadParameter(
            f"name syncs, or give --all or --select. There are: {', '.join(config.syncs)}.",
            param_hint="SYNC",
        )
    chosen = {known_sync(config, name) for name in names}
    for pattern in select:
        found = {name for name in config.syncs if _matches(config, name, pattern)}
        if not found:
            raise typer.BadParameter(
                f"nothing matches '{pattern}'. Give a glob over the names"
                f" ({', '.join(config.syncs)}) or tag:T.",
                param_hint="--select",
            )
        chosen |= found
    return [name for name in config.syncs if everything or name in chosen]


def _matches(config: Config, name: str, pattern: str) -> bool:
    if pattern.startswith(TAG):
        return any(fnmatchcase(tag, pattern[len(TAG) :]) for tag in config.syncs[name].tags)
    return fnmatchcase(name, pattern)
