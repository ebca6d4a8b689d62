"""Schema x call x configuration -> where every column goes. Compiled once, pure.

Refuses, before anything is sent: a call whose required columns are missing, two columns for one
place, columns without a place, and configuration that names no column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa

from pipeline.encode.calls import CALLS, OBJECT_TYPE_FIELD, OBJECT_TYPE_TRAIT, Kind
from pipeline.encode.columns import Converter, converter, is_object, is_text, json_literal
from pipeline.encode.scalars import unix_to_iso
from pipeline.errors import ConfigError, Fault
from pipeline.model import Call

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the configuration says of a sync's columns; names as in `syncs.<name>`.

    columns: column -> new name or dotted place; None drops the column.
    json_columns: STRING columns that hold JSON.
    times: unix, unix_ms or iso8601, inside traits and properties.
    omit_nulls: leave null traits out instead of sending null.
    """

    columns: Mapping[str, str | None] = field(default_factory=dict)
    json_columns: Sequence[str] = ()
    times: str = "unix"
    omit_nulls: bool = False


@dataclass(slots=True)
class Member:
    """A column's place in an object. kind: None inside traits, properties and other objects."""

    name: str
    column: int
    converter: Converter
    kind: Kind | None = None
    checked: bool = False  # its text claims to be JSON and must prove it
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = f",{json_literal(self.name)}:"


@dataclass(slots=True)
class Tree:
    """An object of the payload: members in the order of their columns.

    spread: a column whose whole value is this object.
    """

    name: str
    members: list[Member | Tree] = field(default_factory=list)
    spread: Member | None = None
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = f",{json_literal(self.name)}:"

    def child(self, name: str) -> Tree:
        """The object of that name in here, made if there is none."""
        for member in self.members:
            if isinstance(member, Tree) and member.name == name:
                return member
        tree = Tree(name)
        self.members.append(tree)
        return tree

    def member(self, name: str) -> Member | None:
        """The column of that name in here, if there is one."""
        for member in self.members:
            if isinstance(member, Member) and member.name == name:
                return member
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Everything's place. fields: top-level members by name; objects: top-level objects."""

    call: Call
    fields: Mapping[str, Member]
    objects: Mapping[str, Tree]


def compile_layout(sync: str, call: Call, schema: pa.Schema, rules: Rules) -> Layout:
    """The Layout of a query's result. Raises ConfigError with every fault found."""
    return _Compiler(sync, call, schema, rules).compile()


class _Compiler:
    def __init__(self, sync: str, call: Call, schema: pa.Schema, rules: Rules) -> None:
        self._sync, self._call, self._schema, self._rules = sync, call, schema, rules
        self._shape = CALLS[call]
        self._names = {name.lower(): name for name in self._shape.fields}
        self._fields: dict[str, Member] = {}
        self._objects: dict[str, Tree] = {}
        self._taken: dict[tuple[str, ...], str] = {}
        self._faults: list[Fault] = []

    def compile(self) -> Layout:
        renames = self._by_column("columns", self._rules.columns)
        json_columns = set(self._by_column("json_columns", dict.fromkeys(self._rules.json_columns)))
        for index, column in enumerate(self._schema):
            place = renames.get(index, column.name)
            if place is not None:
                self._place(index, column, place, as_json=index in json_columns)
        self._check_required()
        if self._faults:
            raise ConfigError(self._faults)
        if self._call is Call.GROUP:
            self._link_object_type()
        return Layout(call=self._call, fields=self._fields, objects=self._objects)

    def _fault(self, where: str, what: str, remedy: str) -> None:
        self._faults.append(Fault(f"syncs.{self._sync}.{where}", what, remedy))

    def _by_column(self, key: str, named: Mapping[str, _T]) -> dict[int, _T]:
        """Configuration by column name -> by column number."""
        numbers = {name.lower(): number for number, name in enumerate(self._schema.names)}
        found = {}
        for name, value in named.items():
            if name.lower() in numbers:
                found[numbers[name.lower()]] = value
            else:
                what = f"the query's result has no column {name}."
                self._fault(f"{key}.{name}", what, f"It has: {_listed(self._schema.names)}.")
        return found

    def _place(self, index: int, column: pa.Field, place: str, *, as_json: bool) -> None:
        head, *path = place.split(".")
        name = self._names.get(head.lower(), head)
        kind = self._shape.fields.get(name)
        rest = self._shape.rest
        if kind is Kind.OBJECT or (rest and name.lower() == rest):
            name = name if kind else str(rest)
            self._claim((name, *path), column.name)
            tree = self._objects.setdefault(name, Tree(name))
            if path:
                self._nest(tree, path, self._member(path[-1], index, column, as_json=as_json))
            else:
                self._spread(tree, index, column, as_json=as_json)
        elif kind and not path:
            self._claim((name,), column.name)
            self._fields[name] = self._top(name, index, column, kind)
        elif rest:
            self._claim((rest, head, *path), column.name)
            tree = self._objects.setdefault(rest, Tree(rest))
            leaf = [head, *path]
            self._nest(tree, leaf, self._member(leaf[-1], index, column, as_json=as_json))
        else:
            what = f"{self._call} calls have no place for the column {column.name}."
            self._fault(
                "query", what, f"Take it out of the query, or `columns: {{{place}: null}}`."
            )

    def _claim(self, path: tuple[str, ...], column: str) -> None:
        for length in range(1, len(path) + 1):
            other = self._taken.get(path[:length])
            if other is not None and (length == len(path) or length > 1):
                what = f"the columns {other} and {column} both go to {'.'.join(path)}."
                self._fault("query", what, "Rename or drop one of them with `columns`.")
        self._taken[path] = column

    def _member(self, name: str, index: int, column: pa.Field, *, as_json: bool) -> Member:
        convert = self._converter(column, times=self._rules.times, as_json=as_json)
        return Member(name, index, convert, checked=as_json)

    def _converter(self, column: pa.Field, *, times: str, as_json: bool = False) -> Converter:
        try:
            return converter(column, times=times, as_json=as_json)
        except ConfigError as error:
            self._fault("query", str(error), "")
            return Converter(lambda values: values, quoted=False)

    def _top(self, name: str, index: int, column: pa.Field, kind: Kind) -> Member:
        types = pa.types
        if kind is Kind.TIME and types.is_integer(column.type):
            return Member(name, index, Converter(unix_to_iso, quoted=True), kind)
        plain = pa.field(column.name, column.type)  # an id that is JSON is text all the same
        if kind is Kind.TIME:
            fits = types.is_temporal(column.type) or is_text(column.type)
        else:
            fits = not types.is_nested(column.type)
        if not fits:
            what = f"the column {column.name} is a {column.type}, which can't be a {name}."
            self._fault("query", what, "Cast it in the query, or place it with `columns`.")
        return Member(name, index, self._converter(plain, times="iso8601"), kind)

    def _spread(self, tree: Tree, index: int, column: pa.Field, *, as_json: bool) -> None:
        if pa.types.is_struct(column.type) or as_json or is_object(column):
            tree.spread = self._member(tree.name, index, column, as_json=as_json)
        else:
            what = f"the column {column.name} is a {column.type}, but {tree.name} is an object."
            remedy = f"If it holds JSON, `json_columns: [{column.name}]`; else rename it."
            self._fault("query", what, remedy)

    def _nest(self, tree: Tree, path: Sequence[str], member: Member) -> None:
        for name in path[:-1]:
            tree = tree.child(name)
        tree.members.append(member)

    def _check_required(self) -> None:
        for requirement in self._shape.requires:
            if not any(name in self._fields for name in requirement.fields):
                wanted = " or ".join(requirement.fields)
                what = f"{self._call} calls need a column {wanted}, and the query gives none."
                remedy = (
                    f"It gives: {_listed(self._schema.names)}. "
                    f"Name one in the query (SELECT id AS {requirement.fields[0]}) or in `columns`."
                )
                self._fault("query", what, remedy)

    def _link_object_type(self) -> None:
        """A group's object type stands in both places, whichever the query gave."""
        traits = self._objects.setdefault("traits", Tree("traits"))
        trait = traits.member(OBJECT_TYPE_TRAIT)
        if trait is not None:
            traits.members.remove(trait)
            column = self._schema.field(trait.column)
            given = self._top(OBJECT_TYPE_FIELD, trait.column, column, Kind.ID)
            self._fields.setdefault(OBJECT_TYPE_FIELD, given)


def _listed(names: Sequence[str], most: int = 40) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
