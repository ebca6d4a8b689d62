"""What is drawn for the encoder: cases of any types, any call, text for JSON, whole objects."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from arrow_strategies import KINDS, LEAVES, NAMES, TYPES, Column, Kind, columns, struct
from encoder_oracle import FIELDS, REST, Case
from hypothesis import strategies as st
from value_strategies import JSON_VALUES, TEXT, json_texts

MODES = st.sampled_from(["unix", "unix_ms", "iso8601"])


@st.composite
def value_cases(draw: st.DrawFn, kinds: st.SearchStrategy[Kind] = TYPES) -> Case:
    """An identify of any columns whatever, and at times of several of one type."""
    rows = draw(st.integers(0, 4))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    if draw(st.booleans()):
        kinds = st.just(draw(kinds))
    users = Column("userId", KINDS["INT64", "int64"], tuple(range(rows)))
    return Case(
        call="identify",
        columns=(users, *(draw(columns(name, kinds, rows)) for name in names)),
        rows=rows,
        times=draw(MODES),
        omit=draw(st.booleans()),
    )


# Of the years 1 to 9999, and now and then beyond; milliseconds are what people take for them.
SECONDS = st.one_of(
    st.integers(-62_135_596_800, 253_402_300_799),
    st.sampled_from([-62_135_596_801, 253_402_300_800, 1_700_000_000_000, -(2**63), 2**63 - 1]),
)
STAMPS = st.sampled_from(
    [
        KINDS["TIMESTAMP", "timestamp[us, tz=UTC]"],
        KINDS["DATETIME", "timestamp[us]"],
        Kind("INT64", pa.int64(), st.one_of(st.none(), SECONDS), 0),
        Kind("STRING", pa.string(), st.sampled_from([None, "2026-11-24T01:02:03Z"]), '"'),
    ]
)
ID_BYTES = 40  # longer than any number is
_SHORT_TEXT = Kind(
    "STRING",
    pa.string(),
    st.sampled_from(
        [None, "", "a", '"', "\\\n", "ü", *("ü" * 20 + more for more in ("", "x", "ü"))]
    )
    | st.sampled_from(['"' * ID_BYTES, "\x01" * ID_BYTES, "\\" * (ID_BYTES + 1)]),
    '"\n',
)
IDS = st.one_of(st.just(_SHORT_TEXT), LEAVES)
# column -> place: fields by any case, dotted names, and places that `columns` gives.
PLACES: dict[str, str | None] = {
    "context.ip": "context.ip",
    "phone": "context.device.id",
    "os": "context.device.os",
    "integrations.All": "integrations.All",
    "secret": None,
}
TREES: dict[str, str | None] = {
    "city": "address.city",
    "address.zip": "address.zip",
    "first": "a",
    "deep.er.est": "deep.er.est",
    "EMAIL": "email",
}


# format -> the types of a column that it fits.
_TIMELY = ["DATE", "DATETIME", "TIMESTAMP"]
FORMS = {
    "unix": ["INT64", *_TIMELY],
    "unix_ms": _TIMELY,
    "iso8601": ["INT64", *_TIMELY],
    "string": [sql for sql, _ in KINDS],
    "number": ["INT64", "FLOAT64", "NUMERIC", "BIGNUMERIC", "BOOL", "STRING"],
    "json": ["STRING", "JSON"],
}
_NUMBERS = Kind(
    "STRING",
    pa.string(),
    st.sampled_from(
        [None, "1", "-0.5e+7", "1e999", "01", "1.", "NaN", "", " 1", "1\n", '"1"', "٣"]
    ),
    "junk",
)
CONSTANTS: list[dict[str, Any]] = [
    {"context.app.name": "retl"},
    {"context": {"device": {"kind": 'q"\n'}, "none": None}},
    {"Integrations": {"Customer.io": True, "deep": {"a": [1, {"b": None}]}}},
]
REST_CONSTANTS: list[dict[str, Any]] = [
    {"plan": None},
    {"plan": 10**20, "address.country": "ü"},
    {"deep.er": {"and": 1.5}},
]


@st.composite
def call_cases(draw: st.DrawFn) -> Case:
    """Any call, with fields, places, renames, formats, constants and nulls."""
    call = draw(st.sampled_from(list(FIELDS)))
    rest = REST[call]
    rows = draw(st.integers(1, 4))
    constants = draw(st.sampled_from([{}, *CONSTANTS, *(REST_CONSTANTS if rest else [])]))
    required = {"identify": ["userId"], "track": ["event"], "group": ["groupId"],
                "alias": ["previousId", "userId"]}.get(call, [])  # fmt: skip
    names = draw(st.sets(st.sampled_from([*FIELDS[call], "messageId"]))) | set(required)
    if call in {"track", "page", "screen"} and not names & {"userId", "anonymousId", "groupId"}:
        names.add("anonymousId")
    if names & {"event", "groupId"} and draw(st.booleans()):
        name = "event" if "event" in names else "groupId"
        constants = constants | {name.upper(): draw(st.sampled_from(['Order "1"', 7]))}
        names.remove(name)
    spelled = st.sampled_from([str, str.lower, str.upper])
    found = [draw(columns(draw(spelled)(name), IDS, rows)) for name in sorted(names)]
    if not found:  # an Arrow batch without columns has no rows
        found.append(draw(columns("anonymousId", IDS, rows)))
    stamps = draw(st.sets(st.sampled_from(["timestamp", "originalTimestamp"])))
    found += [draw(columns(name, STAMPS, rows)) for name in sorted(stamps)]
    extra = [*PLACES, *(TREES if rest else [])]
    chosen = draw(st.lists(st.sampled_from(extra), max_size=4, unique=True))
    found += [draw(columns(name, st.one_of(LEAVES, st.just(_NUMBERS)), rows)) for name in chosen]
    if rest and draw(st.booleans()):
        found.append(draw(columns(f"{rest}.B2", LEAVES, rows)))
    if call == "group" and "objectTypeId" not in names and draw(st.booleans()):
        found.append(draw(columns("object_type_id", IDS, rows)))
    if call == "identify" and draw(st.booleans()) and "EMAIL" not in chosen:
        found.append(draw(columns("email", st.just(_SHORT_TEXT), rows)))
    places = PLACES | TREES
    return Case(
        call=call,
        columns=tuple(draw(st.permutations(found))),
        rows=rows,
        renames={name: places[name] for name in chosen if places[name] != name},
        forms=draw(forms([column for column in found if column.name in chosen])),
        constants=constants,
        times=draw(MODES),
        omit=draw(st.booleans()),
        id_bytes=draw(st.sampled_from([None, ID_BYTES])),
    )


@st.composite
def forms(draw: st.DrawFn, found: list[Column]) -> dict[str, str]:
    """A format that fits, for some of the columns that are sent."""
    chosen = {}
    for column in found:
        fits = [form for form, kinds in FORMS.items() if column.kind.sql in kinds]
        if column.name not in {"secret", "EMAIL"} and draw(st.booleans()):
            chosen[column.name] = draw(st.sampled_from(fits))
    return chosen


OBJECTS_IN_JSON = st.one_of(
    st.none(),
    json_texts(
        st.dictionaries(
            st.one_of(st.sampled_from(["a", "B2", 'q"', "deep"]), TEXT), JSON_VALUES, max_size=4
        )
    ),
    st.sampled_from(
        ['{"\\u0061":1, "b":"{,}\\"" }', "{ }", " null", "[1]", '"{}"', '{"a":{"a":1}}']
    ),
)


@st.composite
def spread_cases(draw: st.DrawFn) -> Case:
    """A STRUCT, JSON or text column that is the whole of traits, properties or context."""
    call = draw(st.sampled_from(["identify", "track", "group"]))
    rows = draw(st.integers(1, 4))
    name = draw(st.sampled_from([str(REST[call]), "context"]))
    users = Column("userId", KINDS["INT64", "int64"], tuple(range(rows)))
    known = [Column(field, users.kind, users.values) for field in ("userId", "groupId", "event")]
    shape = draw(st.sampled_from(["STRUCT", "JSON", "STRING"]))
    if shape == "STRUCT":
        inner = draw(st.lists(st.sampled_from(["x", "y", "email"]), min_size=1, unique=True))
        kind = struct({field: draw(LEAVES) for field in inner})
    else:
        kind = Kind(shape, pa.string(), OBJECTS_IN_JSON, "{}")
    others = draw(st.lists(st.sampled_from(["a", "B2", 'q"', "deep.er"]), unique=True))
    found = [draw(columns(name, st.just(kind), rows))]
    found += [draw(columns(f"{name}.{other}", LEAVES, rows)) for other in others]
    return Case(
        call=call,
        columns=(*known[: 3 if call == "track" else 2], *draw(st.permutations(found))),
        rows=rows,
        constants=draw(st.sampled_from([{}, {f"{name}.plan": [1]}])),
        json=frozenset({name} if shape == "STRING" else {}),
        times=draw(MODES),
        omit=draw(st.booleans()),
    )


def _broken(text: str, at: int, put: str) -> str:
    at %= len(text) + 1
    return text[:at] + put + text[at + 1 :]


MAYBE_JSON = st.one_of(
    json_texts(),
    TEXT,
    st.sampled_from(["NaN", "[1,]", "01", "1 2", "] [", "{", "}", '"', "tru", "\ufeff1", "1],[1"]),
    st.builds(_broken, json_texts(), st.integers(0, 99), st.sampled_from(["", *'"\\,]}{[:0\n'])),
)


@st.composite
def json_cases(draw: st.DrawFn) -> Case:
    """STRINGs that should hold JSON, two columns side by side."""
    rows = draw(st.integers(1, 5))
    kind = draw(st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]))
    text = Kind("STRING", kind, st.one_of(st.none(), MAYBE_JSON), "{junk")
    users = Column("userId", KINDS["INT64", "int64"], tuple(range(rows)))
    docs = [draw(columns(name, st.just(text), rows)) for name in ("doc", "b", "c")]
    named = frozenset(draw(st.sets(st.sampled_from(["doc", "b"]), min_size=1)))
    return Case(
        call="identify",
        columns=(users, *docs),
        rows=rows,
        json=named,
        omit=draw(st.booleans()),
    )
