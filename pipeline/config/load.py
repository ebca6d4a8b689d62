"""retl.yml and the environment -> Config, or every fault at once.

In order: find and parse the file, put variables over its keys, insert `${...}`, read query files,
check what belongs together, validate. Each step notes its faults and goes on; a value that is
already at fault is not complained about twice. No message holds a value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from pipeline.config import checks
from pipeline.config.document import Document, parse
from pipeline.config.environment import Inserter, overrides, read_text
from pipeline.config.faults import Path, Problem, dotted, explain, nearest
from pipeline.config.keys import kind_of, known_keys, models_in, tunables
from pipeline.config.models import Config
from pipeline.config.shards import shard_of
from pipeline.errors import ConfigError, Fault

FILE_NAME = "retl.yml"
MAX_BYTES = 4 * 2**20
"""A configuration of thousands of syncs; more is another kind of file."""


def load_config(path: FilePath | None = None, env: Mapping[str, str] | None = None) -> Config:
    """The configuration in `path`, else in RETL_CONFIG, else in retl.yml of this directory.

    env: the environment, the process's own if left out. Raises ConfigError with all faults.
    """
    env = os.environ if env is None else env
    file = path or FilePath(env.get("RETL_CONFIG") or FILE_NAME)
    text = read_text(file, MAX_BYTES)
    if isinstance(text, tuple):
        what = f"The configuration can't be read: {text[0]}."
        remedy = "Name another with --config or RETL_CONFIG, or write one with `retl init`."
        raise ConfigError([Fault(str(file), what, remedy)])
    return _Loader(parse(text, file.name), env, file.absolute()).config()


class _Loader:
    """One load: the mapping as it is being completed, and the faults so far."""

    def __init__(self, document: Document, env: Mapping[str, str], file: FilePath) -> None:
        self._data = document.data
        self._lines = document.lines
        self._directory, self._name, self._env = file.parent, file.name, env
        self._problems = document.problems
        self._overrides = overrides(env, document.data)
        self._inserter = Inserter(env, file.parent)
        self._filled: dict[Path, str] = {}  # what was written where something was inserted
        self._failed: set[Path] = set()  # values that are already at fault
        self._moved: dict[Path, Path] = {}  # values that came by another key

    def config(self) -> Config:
        for path, (_, value) in self._overrides.values.items():
            self._put(path, value)
        self._insert(self._data, ())
        self._read_queries()
        self._problems += [
            problem
            for problem in checks.check(self._data, self._filled)
            if problem.path not in self._failed or problem.path[-1] == "query"
        ]
        try:
            config = Config.model_validate(self._data)
        except ValidationError as error:
            details = error.errors(include_url=False)
            self._problems += [problem for each in details for problem in self._translated(each)]
        shard, apart = shard_of(self._env, self._data.get("state"))
        faults = [*self._located(), *self._overrides.faults, *apart]
        if faults:
            raise ConfigError(faults)
        return config.located(self._directory, shard)

    def _put(self, path: Path, value: str) -> None:
        """Set a key from a variable; where a section is no mapping, that is the fault."""
        node: object = self._data
        for part in path[:-1]:
            if not isinstance(node, dict):
                return
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        if isinstance(node, dict):
            node[path[-1]] = value
            self._filled[path] = ""

    def _insert(self, node: object, path: Path) -> object:
        """Replace `${...}` in every text below `node`, in place."""
        if isinstance(node, dict):
            for key, value in node.items():
                node[key] = self._insert(value, (*path, key))
        elif isinstance(node, list):
            node[:] = [self._insert(value, (*path, index)) for index, value in enumerate(node)]
        elif isinstance(node, str) and "$" in node and path not in self._filled:
            found = len(self._problems)

            def fail(what: str, remedy: str) -> None:
                self._problems.append(Problem(path, what, remedy))

            text = self._inserter.fill(node, fail)
            self._filled[path] = node
            if len(self._problems) > found:
                self._failed.add(path)
                return node
            return text
        return node

    def _read_queries(self) -> None:
        """Put the text of each `query_file` into `query`."""
        syncs = self._data.get("syncs")
        for name, sync in syncs.items() if isinstance(syncs, dict) else ():
            if not isinstance(sync, dict) or sync.get("query") is not None:
                continue
            here, there = ("syncs", name, "query_file"), ("syncs", name, "query")
            file = sync.get("query_file")
            if not isinstance(file, str) or not file or here in self._failed:
                continue
            if self._is_file_source(sync.get("source")):
                continue  # which takes no query: the checks say so
            text = read_text(self._directory / file, MAX_BYTES)
            if isinstance(text, tuple):
                what = f"The query's file can't be read: {text[0]}."
                remedy = "Check its path, which is relative to this file."
                self._problems.append(Problem(here, what, remedy))
                self._failed.add(here)
                continue
            sync["query"], sync["query_file"] = text, None
            self._moved[there] = here

    def _is_file_source(self, name: object) -> bool:
        sources = self._data.get("sources")
        source = sources.get(name) if isinstance(sources, dict) and isinstance(name, str) else None
        return isinstance(source, dict) and source.get("type") == "file"

    def _translated(self, error: Mapping[str, Any]) -> Iterable[Problem]:
        """One of pydantic's errors as a problem; none if its cause is known already."""
        path = self._path(error)
        kind = error["type"]
        if not path:  # the models' own check of references, which has run
            return
        if any(path[: len(failed)] == failed for failed in self._failed):
            return
        if kind == "wrong" and any(failed[: len(path)] == path for failed in self._failed):
            return
        if kind == "extra_forbidden":
            known = known_keys(path[:-1], self._data)
            what, remedy = explain(error, known)
            section = _section_of(str(path[-1]))
            if section and nearest(str(path[-1]), known) is None:
                remedy = f"It belongs under `{section}`."
        elif kind == "union_tag_not_found":
            models = models_in(Config.model_fields[str(path[0])].annotation)
            what, remedy = explain(error, [kind_of(model) for model in models])
        else:
            context = error.get("ctx", {})
            expected = str(context.get("expected") or context.get("expected_tags") or "")
            what, remedy = explain(error, re.findall(r"'([^']*)'", expected) or [expected])
        yield Problem(path, what, remedy)

    def _path(self, error: Mapping[str, Any]) -> Path:
        """Where an error is in the file: pydantic adds the kind of a source, and `[key]`."""
        location: Path = error["loc"]
        if location and location[0] in {"sources", "destinations"}:
            if error["type"].startswith("union_tag"):
                return (*location, "type")
            if len(location) > 2 and location[2] != "[key]":
                location = (*location[:2], *location[3:])
        return location[:-1] if location and location[-1] == "[key]" else location

    def _located(self) -> list[Fault]:
        """All problems as faults, in the order of the file."""
        placed: list[tuple[int, Fault]] = []
        for problem in dict.fromkeys(self._problems):
            path = self._moved.get(problem.path, problem.path)
            if path in self._overrides.values:
                name = self._overrides.values[path][0]
                where, line = f"{name} ({dotted(path)})", 10**9
            else:
                line = problem.line or self._line(path)
                where = f"{dotted(path) or self._name}, line {line}"
            placed.append((line, Fault(where, problem.what, problem.remedy)))
        return [fault for _, fault in sorted(placed, key=lambda pair: pair[0])]

    def _line(self, path: Path) -> int:
        """The line of a value, or of the mapping that lacks it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)


def _section_of(key: str) -> str | None:
    """The section that takes a key, for one that stands in the wrong place."""
    found = [path for path in tunables() if path[-1] == key and len(path) > 1]
    return dotted(found[0][:-1]) if found else None
