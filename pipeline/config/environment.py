"""Environment variables: those that win over keys of the file, and `${...}` inside it.

Variables are named by the key's path (`RETL_SEND__CONCURRENCY`); the most used have a short name
too. An empty variable counts as not set. An unknown RETL_ variable is a fault, since it would
be a setting that silently does nothing. Values never appear in a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from pipeline.config.destinations import BUILT_IN
from pipeline.config.faults import Path, dotted, nearest
from pipeline.config.keys import models_in, scalars, tunables
from pipeline.config.models import Config
from pipeline.config.plugins import settings_of
from pipeline.config.shards import VARIABLES
from pipeline.errors import Fault

SHORT_NAMES: Mapping[str, str] = {
    "RETL_CONCURRENCY": "send.concurrency",
    "RETL_MAX_CONCURRENCY": "send.max_concurrency",
    "RETL_RATE_LIMIT": "send.rate_limit.requests_per_second",
    "RETL_ROWS_RATE_LIMIT": "send.rate_limit.rows_per_second",
    "RETL_BUFFER_BYTES": "send.buffer_bytes",
    "RETL_RETRY_DEADLINE": "send.retry_deadline",
    "RETL_TIMEOUT": "send.timeout",
    "RETL_COMPRESSION": "send.compression",
    "RETL_READ_STREAMS": "read.streams",
    "RETL_ENCODE_THREADS": "read.threads",
    "RETL_SPOOL_DIR": "spool.dir",
    "RETL_METRICS_PORT": "metrics.port",
    "RETL_DRAIN": "drain",
    "RETL_STATE": "state",
    "RETL_LOG_LEVEL": "log.level",
    "RETL_LOG_FORMAT": "log.format",
}
"""Short variable -> the key it sets."""

EMULATOR = "BIGQUERY_EMULATOR_HOST"

OTHERS: Mapping[str, str] = {
    "RETL_CONFIG": "Path of the configuration file; `retl.yml` in the working directory otherwise.",
    EMULATOR: "`endpoint` of every `bigquery` source that has none: `http://127.0.0.1:9050`.",
    **VARIABLES,
}
"""Variables that set no key, or not only one, and what they do."""

MAX_FILE_BYTES = 2**20
"""The most that `${file:...}` reads: an unbounded device must not fill memory."""

# Kubernetes gives every pod variables for each Service of its namespace
# (kubernetes.io/docs/concepts/services-networking/service/#environment-variables): a Service
# called `retl` or `retl-metrics` makes names that look like ours.
_SERVICE_NAME = re.compile(
    r"RETL(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?"
    r"|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_SERVICE_VALUE = re.compile(r"(tcp|udp|sctp)://", re.ASCII)

_INSERT = re.compile(r"\$(?:\$|\{(file:)?([^{}]*)(\}?))")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(slots=True)
class Overrides:
    """Keys that variables set: path -> (variable, value)."""

    values: dict[Path, tuple[str, str]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def variable(path: Path) -> str:
    """The variable that sets a key."""
    return "RETL_" + "__".join(str(part) for part in path).upper().replace("-", "_")


def overrides(env: Mapping[str, str], data: Mapping[str, object]) -> Overrides:
    """What the environment sets of the keys of `data`, the file's mapping."""
    paths = _variables(data)
    found = Overrides()
    for name, value in env.items():
        if not name.startswith("RETL_") or name in OTHERS or not value or _service(name, value):
            continue
        targets = paths.get(name, [])
        if not targets and _SERVICE_NAME.fullmatch(name):
            continue
        if len(targets) > 1:
            what = f"This variable could set {' or '.join(f'`{dotted(p)}`' for p in targets)}."
            found.faults.append(Fault(name, what, "Rename one of them in the file."))
        elif not targets:
            near = nearest(name, [*paths, *OTHERS])
            meant = f"Did you mean `{near}`? " if near else ""
            remedy = f"{meant}Unset it, or see the variables in docs/configuration.md."
            found.faults.append(Fault(name, "This variable is not known.", remedy))
        elif found.values.setdefault(targets[0], (name, value))[1] != value:
            other = found.values[targets[0]][0]
            what = f"`{other}` sets `{dotted(targets[0])}` too, to something else."
            found.faults.append(Fault(name, what, "Set one of them only."))
    if env.get(EMULATOR):
        host = env[EMULATOR]
        url = host if "://" in host else f"http://{host}"
        for source, keys in _named(data, "sources"):
            if keys.get("type") == "bigquery" and keys.get("endpoint") is None:
                found.values.setdefault(("sources", source, "endpoint"), (EMULATOR, url))
    return found


def _variables(data: Mapping[str, object]) -> dict[str, list[Path]]:
    """Every variable that is known, and the keys it sets (more than one: it can't be used)."""
    paths: dict[str, list[Path]] = {variable(path): [path] for path in tunables()}
    for short, target in SHORT_NAMES.items():
        paths[short] = [(*target.split("."),)]
    for section in Config.SECTIONS:
        models = models_in(Config.model_fields[section].annotation)
        keys = dict.fromkeys(key for model in models for key, _ in scalars(model))
        for name, item in _named(data, section):
            added = settings_of(item.get("type"), BUILT_IN) if section == "destinations" else ()
            more = [key for model in added for key, _ in scalars(model)]
            for key in dict.fromkeys([*keys, *more]):
                path: Path = (section, name, *key)
                paths.setdefault(variable(path), []).append(path)
    return paths


def _named(data: Mapping[str, object], section: str) -> list[tuple[str, Mapping[str, object]]]:
    part = data.get(section)
    items = part.items() if isinstance(part, dict) else ()
    return [(str(name), item) for name, item in items if isinstance(item, dict)]


def _service(name: str, value: str) -> bool:
    """Whether Kubernetes made the variable, even where the name is one of ours."""
    return bool(_SERVICE_NAME.fullmatch(name) and _SERVICE_VALUE.match(value))


class Inserter:
    """Replaces `${NAME}` and `${file:PATH}`; `$$` is a plain `$`. Reads each file once."""

    def __init__(self, env: Mapping[str, str], directory: FilePath) -> None:
        self._env = env
        self._directory = directory
        self._files: dict[str, str | tuple[str, str]] = {}

    def fill(self, text: str, fail: Callable[[str, str], None]) -> str:
        """The text with everything inserted; calls fail(what, remedy) for each that can't be."""

        def insert(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            is_file, name, end = match[1], match[2].strip(), match[3]
            found = self._file(name) if is_file and name and end else self._value(name, end)
            if isinstance(found, tuple):
                fail(*found)
                return ""
            return found

        return _INSERT.sub(insert, text)

    def _value(self, name: str, end: str) -> str | tuple[str, str]:
        literal = "Write `$${` where `${` is meant literally."
        if not end:
            return "A `${` is not closed.", f"Close it with `}}`. {literal}"
        if not _NAME.fullmatch(name):
            what = "What stands in `${...}` is not the name of a variable."
            return what, f"Write `${{NAME}}` or `${{file:PATH}}`. {literal}"
        value = self._env.get(name)
        if value is None:
            return f"The environment variable `{name}` is not set.", f"Set `{name}`."
        return value

    def _file(self, path: str) -> str | tuple[str, str]:
        if path not in self._files:
            text = read_text(self._directory / path, MAX_FILE_BYTES)
            if isinstance(text, str):
                self._files[path] = text.rstrip("\r\n")
            else:
                what = f"The file `{path}` can't be read: {text[0]}."
                self._files[path] = (what, "Check its path, which is relative to this file.")
        return self._files[path]


def read_text(path: FilePath, limit: int) -> str | tuple[str]:
    """A file's text, or why it can't be had, as a tuple of one. limit: bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            return (f"it is larger than {limit} bytes",)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return ("it is not UTF-8 text",)
    except ValueError:  # a NUL in the path
        return ("its name can't be a path",)
    except OSError as error:
        return ((error.strerror or type(error).__name__).lower(),)
