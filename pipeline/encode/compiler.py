"""Schema x call x configuration -> where every column goes. Compiled once, pure.

Refuses, before anything is sent: a call whose required columns are missing, two columns or
constants for one place, columns without a place, formats that do not fit, and configuration that
names no column. Constants are written as text here and cost nothing per row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

import pyarrow as pa

from pipeline.encode.calls import (
    CALLS,
    OBJECT_TYPE_DEFAULT,
    OBJECT_TYPE_FIELD,
    OBJECT_TYPE_TRAIT,
    Kind,
)
from pipeline.encode.claims import Claim
from pipeline.encode.columns import (
    BARE,
    QUOTED,
    Converter,
    converter,
    holds_json,
    is_object,
    is_text,
    json_literal,
)
from pipeline.encode.formats import SECONDS_TO_ISO, formatted, inside
from pipeline.encode.layout import ColumnRule, Layout, Literal, Member, Rules, Tree
from pipeline.encode.nonfinite import may_hold_nonfinite
from pipeline.encode.places import Path, Taken, aliased, locate, read_constants
from pipeline.errors import ConfigError, Fault
from pipeline.model import Call

_T = TypeVar("_T")


def compile_layout(
    sync: str, call: Call, schema: pa.Schema, rules: Rules, *, id_bytes: int | None = None
) -> Layout:
    """The Layout of a query's result. id_bytes: the longest id that is accepted.

    Raises ConfigError with every fault found.
    """
    return _Compiler(sync, call, schema, rules, id_bytes).compile()


class _Compiler:
    def __init__(
        self, sync: str, call: Call, schema: pa.Schema, rules: Rules, id_bytes: int | None
    ) -> None:
        self._sync, self._call, self._schema, self._rules = sync, call, schema, rules
        self._id_bytes = id_bytes
        self._shape = CALLS[call]
        self._fields: dict[str, Member] = {}
        self._literals: dict[str, str] = {}
        self._objects: dict[str, Tree] = {}
        self._taken = Taken()
        if call is Call.GROUP:  # whose object type is sent there too
            self._taken.claim(("traits", OBJECT_TYPE_TRAIT), f"the field {OBJECT_TYPE_FIELD}")
        self._leading: dict[str, int] = {}  # how many members of an object are constants
        self._floats: list[int] = []
        self._faults: list[Fault] = []

    def compile(self) -> Layout:
        self._place_constants()
        self._leading = {name: len(tree.members) for name, tree in self._objects.items()}
        rules = self._by_column("columns", self._rules.columns)
        json_columns = set(self._by_column("json_columns", dict.fromkeys(self._rules.json_columns)))
        for index, column in enumerate(self._schema):
            rule = rules.get(index, ColumnRule())
            if isinstance(rule, str):
                rule = ColumnRule(to=rule)
            if rule is not None:
                if may_hold_nonfinite(column.type):
                    self._floats.append(index)
                form = self._form(column, rule, as_json=index in json_columns)
                self._place(index, column, rule.to or column.name, form)
        self._check_required()
        if self._faults:
            raise ConfigError(self._faults)
        if self._call is Call.GROUP:
            self._send_object_type()
        return Layout(
            call=self._call,
            fields=self._fields,
            literals=self._literals,
            objects=self._objects,
            requires=tuple(
                requirement
                for requirement in self._shape.requires
                if not any(name in self._literals for name in requirement.fields)
            ),
            floats=tuple(self._floats),
        )

    def _fault(self, where: str, what: str, remedy: str) -> None:
        self._faults.append(Fault(f"syncs.{self._sync}.{where}", what, remedy))

    def _by_column(self, key: str, named: Mapping[str, _T]) -> dict[int, _T]:
        """Configuration by column name -> by column number."""
        exact = {name: number for number, name in enumerate(self._schema.names)}
        lower = {name.lower(): number for name, number in exact.items()}
        found: dict[int, _T] = {}
        for name, value in named.items():
            number = exact.get(name, lower.get(name.lower()))
            if number is None:
                what = f"the query's result has no column {name}."
                self._fault(f"{key}.{name}", what, f"It has: {_listed(self._schema.names)}.")
            elif number in found:
                what = f"the column {self._schema.names[number]} is named twice."
                self._fault(f"{key}.{name}", what, "Name it once.")
            else:
                found[number] = value
        return found

    def _form(self, column: pa.Field, rule: ColumnRule, *, as_json: bool) -> str | None:
        if as_json and rule.form not in {None, "json"}:
            what = f"the column {column.name} is one of `json_columns` too."
            self._fault(f"columns.{column.name}.as", what, "Keep one of the two.")
        return "json" if as_json else rule.form

    def _place_constants(self) -> None:
        found = read_constants(self._call, self._rules.constants)
        for flaw in found.flaws:
            self._fault(".".join(("constants", *flaw.keys)), flaw.what, flaw.remedy)
        for constant in found.values:
            head, *path = constant.path
            self._taken.claim(constant.path, f"the constant {constant.given}")
            kind = self._shape.fields.get(head)
            if kind and kind is not Kind.OBJECT:
                self._literals[head] = constant.text
                self._check_literal(kind, constant.given, constant.text)
            else:
                tree = self._objects.setdefault(head, Tree(head))
                for name in path[:-1]:
                    tree = tree.child(name)
                if path:
                    tree.members.append(Literal(path[-1], constant.text))

    def _check_literal(self, kind: Kind, given: str, text: str) -> None:
        longest = self._id_bytes
        if kind is Kind.ID and longest is not None and len(json.loads(text).encode()) > longest:
            what = f"an id of more than {longest} bytes would be refused."
            self._fault(f"constants.{given}", what, "Make it shorter.")

    def _place(self, index: int, column: pa.Field, place: str, form: str | None) -> None:
        path = locate(self._call, place)
        if path is None:
            what = f"{self._call} calls have no place for the column {column.name}."
            remedy = f"Take it out of the query, or `columns: {{{column.name}: null}}`."
            self._fault("query", what, remedy)
            return
        self._claim(path, column.name)
        kind = self._shape.fields.get(path[0])
        if kind and kind is not Kind.OBJECT:
            self._fields[path[0]] = self._top(path[0], index, column, kind)
            return
        tree = self._objects.setdefault(path[0], Tree(path[0]))
        if len(path) == 1:
            self._spread(tree, index, column, form)
            return
        for name in path[1:-1]:
            tree = tree.child(name)
        tree.members.append(self._member(path[-1], index, column, form))

    def _claim(self, path: Path, column: str) -> None:
        owner = f"the column {column}"
        other = self._taken.claim(path, owner)
        if other is not None:
            place, first = other
            both = f"{first} and {owner}"
            if first.startswith("the column "):
                both = f"the columns {first.removeprefix('the column ')} and {column}"
            what = f"{both} both go to {'.'.join(place)}."
            self._fault("query", what, "Rename or drop one of them with `columns`.")

    def _member(self, name: str, index: int, column: pa.Field, form: str | None) -> Member:
        try:
            if form is None:
                convert, claim = converter(column, times=self._rules.times), None
            else:
                convert, claim = formatted(column, form)
            if claim is None and form != "string":
                convert, claim = self._json_inside(column, convert)
        except ConfigError as error:
            where = "query" if form is None else f"columns.{column.name}.as"
            self._fault(where, str(error), "")
            return Member(name, index, _NOTHING)
        return Member(name, index, convert, claim=claim)

    def _json_inside(self, column: pa.Field, convert: Converter) -> tuple[Converter, Claim | None]:
        """What a column has to prove that is JSON, or has some inside; its text is then whole."""
        if not holds_json(column):
            return convert, None
        return convert.within(BARE), Claim.PAIRS if self._rules.trusted_json else Claim.JSON

    def _top(self, name: str, index: int, column: pa.Field, kind: Kind) -> Member:
        if kind is Kind.TIME and pa.types.is_integer(column.type):
            return Member(name, index, SECONDS_TO_ISO, kind, claim=Claim.SECONDS)
        plain = pa.field(column.name, column.type)  # an id that is JSON is text all the same
        self._check_fits(name, plain, time=kind is Kind.TIME)
        try:
            if isinstance(plain.type, pa.BaseExtensionType):
                inner = converter(pa.field(column.name, plain.type.storage_type))
                convert = inner.after(lambda values: values.storage)
            elif pa.types.is_date(plain.type) and kind is Kind.TIME:
                convert, _ = formatted(plain, "iso8601")
            else:
                convert = converter(plain, times="iso8601")
            return Member(name, index, _on_top(convert, kind), kind)
        except ConfigError as error:
            self._fault("query", str(error), "")
            return Member(name, index, _NOTHING, kind)

    def _check_fits(self, name: str, column: pa.Field, *, time: bool = False) -> None:
        kind, types = column.type, pa.types
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        if time:
            fits = types.is_timestamp(kind) or types.is_date(kind) or is_text(kind)
        else:
            fits = not types.is_nested(kind)
        if not fits:
            what = f"the column {column.name} is a {kind}, which can't be a {name}."
            self._fault("query", what, "Cast it in the query, or place it with `columns`.")

    def _spread(self, tree: Tree, index: int, column: pa.Field, form: str | None) -> None:
        member = self._member(tree.name, index, column, form)
        if pa.types.is_struct(column.type):
            self._spread_struct(tree, index, column, form)
        elif form == "json" or (is_object(column) and form is None):
            tree.spread = member
        else:
            what = f"the column {column.name} is a {column.type}, but {tree.name} is an object."
            remedy = f"If it holds JSON, `json_columns: [{column.name}]`; else rename it."
            self._fault("query", what, remedy)

    def _spread_struct(self, tree: Tree, index: int, column: pa.Field, form: str | None) -> None:
        """The fields of a STRUCT are members like any other, but come before them."""
        times = form if form is not None else self._rules.times
        at = self._leading.get(tree.name, 0)
        for place, child in enumerate(column.type):
            path = aliased(self._call, (tree.name, child.name))
            self._claim(path, f"{column.name}.{child.name}")
            kind = self._shape.fields.get(path[0]) if len(path) == 1 else None
            if kind is not None:
                field = pa.field(f"{column.name}.{child.name}", child.type)
                top = self._top(path[0], index, field, kind)
                top.converter = inside(top.converter, place)
                self._fields[path[0]] = top
                continue
            try:
                convert, claim = self._json_inside(child, converter(child, times=times))
            except ConfigError:  # which `_member` has noted for the whole column
                continue
            convert = inside(convert, place)
            tree.members.insert(at, Member(child.name, index, convert, claim=claim, spread=True))
            at += 1

    def _check_required(self) -> None:
        for requirement in self._shape.requires:
            given = self._fields.keys() | self._literals.keys()
            if given.isdisjoint(requirement.fields):
                wanted = " or ".join(requirement.fields)
                what = f"{self._call} calls need a column {wanted}, and the query gives none."
                remedy = (
                    f"It gives: {_listed(self._schema.names)}. "
                    f"Name one in the query (SELECT id AS {requirement.fields[0]}), in `columns` "
                    "or in `constants`."
                )
                self._fault("query", what, remedy)

    def _send_object_type(self) -> None:
        """A group's object type goes to both places; the encoder adds a column's to the traits."""
        traits = self._objects.setdefault("traits", Tree("traits"))
        if OBJECT_TYPE_FIELD not in self._fields:
            text = self._literals.setdefault(OBJECT_TYPE_FIELD, json_literal(OBJECT_TYPE_DEFAULT))
            traits.members.append(Literal(OBJECT_TYPE_TRAIT, text))


# Stands in for what is at fault and will not be used.
_NOTHING = Converter(lambda values: values)


def _on_top(convert: Converter, kind: Kind) -> Converter:
    """In quotes whatever it is; the text of an id or a name, which is looked at, in full."""
    is_time = kind is Kind.TIME and convert.ends != BARE
    return convert if is_time else convert.within(QUOTED)


def _listed(names: Sequence[str], most: int = 40) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
