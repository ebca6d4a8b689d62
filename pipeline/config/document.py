"""YAML text -> plain mappings, with the line of every value.

The scalars are YAML 1.2's: `no`, `on`, `1:30` and `2026-12-01` are text, as an editor shows them.
Duplicate keys are faults; merge keys (`<<`) work; aliases can't expand without bound. Messages
never quote the file, because a line of it may hold a secret. Knows nothing of retl's keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipeline.config.faults import Path, Problem
from pipeline.errors import ConfigError, Fault

# libyaml is some 20 times faster; it comes with PyYAML's wheels, not with every build.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_DEPTH = 40
"""Our deepest key is 5 levels down."""
MAX_VALUES = 100_000
"""Values after aliases are expanded: hundreds of times what 100 syncs need."""

_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,30}|0o[0-7]{1,30}|0x[0-9a-fA-F]{1,30}", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]{1,30}|[0-9]{1,30}(?:\.[0-9]{0,30})?)(?:[eE][-+]?[0-9]{1,4})?", re.ASCII
)


@dataclass(slots=True)
class Document:
    """A parsed file. lines: counted from 1, for each value by its path."""

    data: dict[str, object]
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Node:
    """A scalar (text), list (nodes) or mapping (pairs of nodes)."""

    line: int
    value: str | list[_Node] | list[tuple[_Node, _Node]]
    kind: type
    plain: bool = False
    closed: bool = True


class _Stop(Exception):
    """The file can't be understood from here on."""

    def __init__(self, line: int, what: str, remedy: str) -> None:
        super().__init__(what)
        self.line, self.what, self.remedy = line, what, remedy


def parse(text: str, name: str) -> Document:
    """The mapping in `text`. name: what to call the file. Raises ConfigError for broken YAML."""
    try:
        document = Document({})
        document.data = _Expander(document).root(_Composer(text).document())
    except yaml.MarkedYAMLError as error:
        fault = _broken(error, text, name)
    except yaml.YAMLError:  # the reader's, which has no line: find it
        bad = yaml.reader.Reader.NON_PRINTABLE.search(text)
        line = text.count("\n", 0, bad.start()) + 1 if bad else 1
        what = "There is a control character in the file."
        fault = Fault(f"{name}, line {line}", what, "Remove it.")
    except _Stop as stop:
        fault = Fault(f"{name}, line {stop.line}", stop.what, stop.remedy)
    else:
        return document
    raise ConfigError([fault]) from None


def _broken(error: yaml.MarkedYAMLError, text: str, name: str) -> Fault:
    """A fault of the syntax; the likely cause is read off the line, which is not shown."""
    mark = error.problem_mark or error.context_mark
    number, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.split("\n")
    line = lines[number] if number < len(lines) else ""
    # The pure Python parser quotes what it stumbles over; keep single characters only.
    problem = re.sub(r" ?'[^']{2,}'", "", error.problem or "it can't be parsed")
    if "\t" in line[: len(line) - len(line.lstrip())]:
        remedy = "Indent with spaces, not tabs."
    elif re.search(r"[\[{,].*\$\{", line):
        remedy = "Inside { } and [ ], put `${...}` in quotes."
    else:
        remedy = "Check the indentation, and put values with special characters in quotes."
    where = f"{name}, line {number + 1}, column {column + 1}"
    return Fault(where, f"This is not YAML: {problem}.", remedy)


class _Composer:
    """Events -> nodes; an alias is the very node it names."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self._anchors: dict[str, _Node] = {}

    def document(self) -> _Node:
        """The root of the only document."""
        next(self._events)  # the stream's start
        first = next(self._events)
        if isinstance(first, yaml.StreamEndEvent):
            return _Node(1, "", str)
        root = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        after = next(self._events)
        if isinstance(after, yaml.DocumentStartEvent):
            raise _Stop(_line(after), "The file holds a second document.", "Remove the `---` line.")
        return root

    def _node(self, event: Any, depth: int) -> _Node:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(str(event.anchor))
            if known is None or not known.closed:
                # Most often no alias at all but a password that starts with an asterisk.
                what = "A value that starts with `*` names an anchor, and there is none."
                raise _Stop(line, what, "Put the value in quotes.")
            return known
        if depth > MAX_DEPTH:
            raise _Stop(line, "This is nested too deeply.", f"Use at most {MAX_DEPTH} levels.")
        if event.tag not in {None, "!", "tag:yaml.org,2002:str"}:
            what = "A value that starts with `!` is a YAML tag, and none is known here."
            raise _Stop(line, what, "Put the value in quotes.")
        if isinstance(event, yaml.ScalarEvent):
            node = _Node(line, event.value, str, plain=event.tag is None and event.implicit[0])
        else:
            mapping = isinstance(event, yaml.MappingStartEvent)
            node = _Node(line, [], dict if mapping else list, closed=False)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        if node.kind is not str:
            children = list(self._children(depth + 1))
            node.value = (
                list(zip(children[::2], children[1::2], strict=True))
                if node.kind is dict
                else children
            )
            node.closed = True
        return node

    def _children(self, depth: int) -> Iterator[_Node]:
        while True:
            event = next(self._events)
            if isinstance(event, yaml.CollectionEndEvent):
                return
            yield self._node(event, depth)


class _Expander:
    """Nodes -> plain values, noting lines and problems in the document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0

    def root(self, node: _Node) -> dict[str, object]:
        """The whole document, which must be a mapping."""
        if node.kind is not dict:
            what = "The file is empty." if node.value == "" else "The file is not a mapping."
            remedy = "Write `key: value` lines; `retl init` writes an example."
            raise _Stop(node.line, what, remedy)
        return self.mapping(node, ())

    def value(self, node: _Node, path: Path) -> object:
        self._count += 1
        if self._count > MAX_VALUES or len(path) > MAX_DEPTH:
            what = "The file's aliases expand to too much."
            raise _Stop(node.line, what, f"Use at most {MAX_VALUES} values, {MAX_DEPTH} deep.")
        self._document.lines[path] = node.line
        if node.kind is dict:
            return self.mapping(node, path)
        if isinstance(node.value, str):
            return scalar(node.value) if node.plain else node.value
        return [
            self.value(item, (*path, index))
            for index, item in enumerate(node.value)
            if isinstance(item, _Node)
        ]

    def mapping(self, node: _Node, path: Path) -> dict[str, object]:
        result: dict[str, object] = {}
        merged: list[tuple[str, _Node]] = []
        self._document.lines[path] = node.line
        for key, item in _pairs(node):
            if not isinstance(key.value, str):
                what = "A key is a mapping or a list."
                remedy = "Put a value that starts with `{` or `[` in quotes."
                self._problem(path, key, what, remedy)
            elif key.value == "<<" and key.plain:
                merged += self._merged(item, path)
            elif key.value in result:
                what = f"The key `{key.value}` is given twice."
                self._problem((*path, key.value), key, what, "Remove one of them.")
            else:
                result[key.value] = self.value(item, (*path, key.value))
                # The key's line: where a block of text or a mapping is looked for.
                self._document.lines[*path, key.value] = key.line
        for name, item in merged:  # own keys win, and of several mappings the first
            if name not in result:
                result[name] = self.value(item, (*path, name))
        return result

    def _merged(self, node: _Node, path: Path) -> list[tuple[str, _Node]]:
        """The pairs that `<<` brings in; of merges inside them, none."""
        parts = node.value if node.kind is list else [node]
        pairs: list[tuple[str, _Node]] = []
        for part in parts:
            if not isinstance(part, _Node) or part.kind is not dict:
                what = "`<<` takes a mapping or a list of mappings."
                self._problem(path, node, what, "Write `<<: *anchor`.")
                continue
            self._count += len(part.value)
            pairs += [(key.value, item) for key, item in _pairs(part) if isinstance(key.value, str)]
        return pairs

    def _problem(self, path: Path, node: _Node, what: str, remedy: str) -> None:
        self._document.problems.append(Problem(path, what, remedy, node.line))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _pairs(node: _Node) -> list[tuple[_Node, _Node]]:
    return [pair for pair in node.value if isinstance(pair, tuple)]


def scalar(text: str) -> object:
    """A plain scalar's value by YAML 1.2's core schema, infinities and NaN aside."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
