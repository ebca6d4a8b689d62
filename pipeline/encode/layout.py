"""Where every column and constant of a sync goes in its payloads: the values, compiled once.

`compiler.py` makes a Layout; the encoder and `objects.py` read it. No rows, no Arrow kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.encode.calls import Kind, Requirement
from pipeline.encode.claims import Claim
from pipeline.encode.columns import Converter, json_literal
from pipeline.model import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnRule:
    """to: new name or dotted place; None: where its name says. form: one of `formats.FORMATS`."""

    to: str | None = None
    form: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the configuration says of a sync's columns; names as in `syncs.<name>`.

    columns: column -> what becomes of it, or only its new place; None drops the column.
    json_columns: STRING columns that hold JSON.
    constants: place -> a JSON value that every payload gets.
    times: unix, unix_ms or iso8601, inside traits and properties.
    omit_nulls: leave null traits out instead of sending null.
    trusted_json: the source vouches that columns of type JSON hold JSON, as BigQuery does.
    """

    columns: Mapping[str, str | ColumnRule | None] = field(default_factory=dict)
    json_columns: Sequence[str] = ()
    constants: Mapping[str, object] = field(default_factory=dict)
    times: str = "unix"
    omit_nulls: bool = False
    trusted_json: bool = True


@dataclass(slots=True)
class Member:
    """A column's place in an object.

    kind: None inside traits, properties and other objects. claim: what its text has to prove.
    spread: it is a field of a STRUCT that gives its members; where that is null, nothing is sent.
    """

    name: str
    column: int
    converter: Converter
    kind: Kind | None = None
    claim: Claim | None = None
    spread: bool = False
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = f",{json_literal(self.name)}:"


@dataclass(slots=True)
class Literal:
    """A constant's place in an object. text: its JSON."""

    name: str
    text: str
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = f",{json_literal(self.name)}:"


@dataclass(slots=True)
class Tree:
    """An object of the payload: constants first, then a STRUCT's members, then the columns.

    spread: a JSON column whose whole value is this object; what stands in `members` wins over its
        members of the same name.
    """

    name: str
    members: list[Member | Literal | Tree] = field(default_factory=list)
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
    """Everything's place.

    fields: top-level members by name. literals: the JSON of top-level strings that are constant.
    objects: top-level objects. requires: what every row has to prove.
    floats: numbers of the columns that may hold NaN or infinities.
    """

    call: Call
    fields: Mapping[str, Member]
    literals: Mapping[str, str]
    objects: Mapping[str, Tree]
    requires: tuple[Requirement, ...]
    floats: tuple[int, ...]
