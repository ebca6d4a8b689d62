"""`columns` and `constants` in retl.yml: their forms, their faults and where these are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.config import ColumnConfig, Config, SyncConfig, json_schema, load_config
from pipeline.config.reference import document
from pipeline.destination.file import File
from pipeline.errors import ConfigError, Fault
from pipeline.model import Span, Window
from pipeline.wiring.encoders import make_encoder

BASE = """\
version: 1
sources: {disk: {type: file, path: rows}}
destinations: {out: {type: file, path: out.ndjson}}
syncs:
  users:
    source: disk
    call: track
    destinations: [out]
"""
# How Python shows bytes of the environment that are not UTF-8.
NO_TEXT = {"BYTES": "\udcff"}


def load(folder: Path, text: str, env: Mapping[str, str] | None = None) -> SyncConfig:
    """The sync of BASE with these lines added to it."""
    file = folder / "retl.yml"
    file.write_text(BASE + "".join(f"    {line}\n" for line in text.splitlines()))
    config: Config = load_config(file, env or {})
    return config.syncs["users"]


def faults(folder: Path, text: str, env: Mapping[str, str] | None = None) -> tuple[Fault, ...]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, env)
    return caught.value.faults


def test_the_three_forms_of_a_column(tmp_path: Path) -> None:
    sync = load(
        tmp_path,
        "columns:\n"
        "  ip_address: context.ip\n"
        "  notes: null\n"
        "  empty:\n"
        "  created: {as: iso8601}\n"
        "  plan: {to: plan_name, as: string}\n"
        "  inserted: {to: '${PLACE}', as: '${FORM}'}\n",
        {"PLACE": "a.b", "FORM": "number"},
    )
    assert sync.columns == {
        "ip_address": ColumnConfig(to="context.ip"),
        "notes": None,
        "empty": None,
        "created": ColumnConfig.model_validate({"as": "iso8601"}),
        "plan": ColumnConfig.model_validate({"to": "plan_name", "as": "string"}),
        "inserted": ColumnConfig.model_validate({"to": "a.b", "as": "number"}),
    }


@pytest.mark.parametrize(
    ("line", "where", "what", "remedy"),
    [
        ("{as: iso}", "created.as, line 10", "not a value", "Did you mean `iso8601`?"),
        ("{as: Unix-ms}", "created.as, line 10", "not a value", "Did you mean `unix_ms`?"),
        ("{as: 5}", "created.as, line 10", "not a value", "Use one of `unix`, "),
        ("{ass: unix}", "created.ass, line 10", "not known", "Did you mean `as`?"),
        ("{form: unix}", "created.form, line 10", "not known", "Use one of `to`, `as`."),
        ("{}", "created, line 10", "both missing", "drop the column"),
        ("{to: null, as: null}", "created, line 10", "both missing", "drop the column"),
        ("{to: ''}", "created.to, line 10", "empty", "Write a place"),
        ("{to: 5}", "created.to, line 10", "must be text", "quotes"),
        ("{to: a..b}", "created.to, line 10", "no place", "object.name"),
        ("''", "created, line 10", "empty", "Write a place"),
        ("context.", "created, line 10", "no place", "object.name"),
        ("${BYTES}", "created, line 10", "not text", "Remove"),
        ("{to: '${BYTES}'}", "created.to, line 10", "not text", "Remove"),
        ("5", "created, line 10", "neither a place nor", "{to: PLACE, as: FORMAT}"),
        ("[a]", "created, line 10", "neither a place nor", "{to: PLACE, as: FORMAT}"),
    ],
)
def test_a_fault_in_a_column_has_its_place_and_its_remedy(
    tmp_path: Path, line: str, where: str, what: str, remedy: str
) -> None:
    [fault] = faults(tmp_path, f"columns:\n  created: {line}", NO_TEXT)
    assert fault.where == f"syncs.users.columns.{where}"
    assert what in fault.what
    assert remedy in fault.remedy


def test_constants_of_every_kind(tmp_path: Path) -> None:
    sync = load(
        tmp_path,
        "constants:\n"
        "  event: Order Completed\n"
        "  groupId: 7\n"
        "  integrations: {All: false, Customer.io: true}\n"
        "  context.app.name: '${APP}'\n"
        "  rate: 1.50\n"
        "  tags: [a, null]\n"
        "  none:\n",
        {"APP": "retl"},
    )
    assert sync.constants == {
        "event": "Order Completed",
        "groupId": 7,
        "integrations": {"All": False, "Customer.io": True},
        "context.app.name": "retl",
        "rate": 1.5,
        "tags": ["a", None],
        "none": None,
    }


@pytest.mark.parametrize(
    ("line", "where", "what"),
    [
        ("event: ''", "event, line 10", "event is empty"),
        ("event:", "event, line 10", "event is empty"),
        ("event: true", "event, line 10", "event is text"),
        ("groupId: 1.5", "groupId, line 10", "groupId is text"),
        ("context: web", "context, line 10", "an object"),
        ("x: .nan", "x, line 10", "no NaN"),
        ("x: -.inf", "x, line 10", "no infinities"),
        ("x: 1e999", "x, line 10", "no infinities"),
        ("x: {y: [1, .inf]}", "x.y, line 10", "no infinities"),
        ("messageId: m", "messageId, line 10", "same messageId"),
        ("timestamp: tomorrow", "timestamp, line 10", "is a time"),
        (
            "userId: a\n  USERID: b",
            "USERID, line 11",
            "given twice, here and by the constant userId",
        ),
        ("context.a: 1\n  context: {a: 2}", "context.a, line 11", "given twice"),
        ("x: ${BYTES}", "x, line 10", "no JSON value"),
        ("a..b: 1", "a..b, line 10", "no place"),
        ("x: ${NOTHING}", "x, line 10", "`NOTHING` is not set"),
    ],
)
def test_a_fault_in_a_constant_has_its_place(
    tmp_path: Path, line: str, where: str, what: str
) -> None:
    [fault] = faults(tmp_path, f"constants:\n  {line}", NO_TEXT)
    assert fault.where == f"syncs.users.constants.{where}"
    assert what in fault.what
    assert fault.what.endswith(".")
    assert fault.remedy.endswith(".")


def test_constants_that_are_no_mapping(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, "constants: [a]")
    assert (fault.where, fault.what) == (
        "syncs.users.constants, line 9",
        "This must be a mapping.",
    )


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path, "columns: {a: {as: x}, b: 5}\nconstants: {event: '', x: .nan}")
    assert [fault.where.partition(",")[0] for fault in found] == [
        "syncs.users.columns.a.as",
        "syncs.users.columns.b",
        "syncs.users.constants.event",
        "syncs.users.constants.x",
    ]


def test_values_that_came_from_the_environment_are_not_shown(tmp_path: Path) -> None:
    text = "columns: {a: {as: '${SECRET}'}}\nconstants: {timestamp: '${SECRET}'}"
    for fault in faults(tmp_path, text, {"SECRET": "hunter2"}):
        assert "hunter2" not in str(fault)


def test_variables_can_not_set_them(tmp_path: Path) -> None:
    text = "columns: {a: {as: unix}}\nconstants: {event: e}"
    for name in ("RETL_SYNCS__USERS__COLUMNS__A__AS", "RETL_SYNCS__USERS__CONSTANTS__EVENT"):
        [fault] = faults(tmp_path, text, {name: "x"})
        assert (fault.where, fault.what) == (name, "This variable is not known.")


def test_a_config_made_in_code_is_checked_too() -> None:
    data: dict[str, Any] = {
        "version": 1,
        "sources": {"disk": {"type": "file", "path": "rows"}},
        "destinations": {"out": {"type": "file", "path": "out"}},
        "syncs": {
            "users": {
                "source": "disk",
                "call": "identify",
                "destinations": ["out"],
                "columns": {"a": ColumnConfig(to="b"), "c": "d", "e": None},
                "constants": {"userId": ""},
            }
        },
    }
    with pytest.raises(ValidationError, match="userId is empty"):
        Config.model_validate(data)
    data["syncs"]["users"]["constants"] = {"context": {"app": "retl"}}
    columns = Config.model_validate(data).syncs["users"].columns
    assert columns == {"a": ColumnConfig(to="b"), "c": ColumnConfig(to="d"), "e": None}


@pytest.mark.parametrize(
    ("key", "value", "fits"),
    [
        ("columns", {"a": {"as": "unix"}}, True),
        ("columns", {"a": {"to": "b", "as": "${FORM}"}}, True),
        ("columns", {"a": {"as": "iso"}}, False),
        ("columns", {"a": {"form": "unix"}}, False),
        ("columns", {"a": [1]}, False),
        ("constants", {"event": "e", "integrations": {"All": False}, "n": None, "l": [1.5]}, True),
        ("constants", ["event"], False),
    ],
)
def test_the_schema_for_editors(key: str, value: object, *, fits: bool) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    sync = {"source": "disk", "call": "track", "destinations": ["out"], key: value}
    data = {
        "version": 1,
        "sources": {"disk": {"type": "file", "path": "rows"}},
        "destinations": {"out": {"type": "file", "path": "out"}},
        "syncs": {"users": sync},
    }
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(data) is fits


def test_the_reference_shows_the_keys_as_they_are_written() -> None:
    text = document()
    assert "## `syncs.NAME.columns.NAME`" in text
    assert "| `as` | `unix`, `unix_ms`, `iso8601`, `string`, `number`, `json` |" in text
    assert "| `constants` | mapping |" in text


def test_a_sync_encodes_what_its_configuration_says(tmp_path: Path) -> None:
    load(
        tmp_path,
        "columns: {seen: {to: context.seen, as: iso8601}, n: {as: number}, gone: null, a: b}\n"
        "constants: {event: Seen, integrations: {All: false}}\n",
    )
    batch = pa.record_batch(
        {"userId": ["u"], "seen": pa.array([0]), "n": ["5"], "gone": ["x"], "a": ["a"]}
    )
    destination = File(name="out")
    config = load_config(tmp_path / "retl.yml", {})
    window = Window(start=0, sequence=1)
    encoder = make_encoder(config, "users", destination, window, batch.schema)
    payloads = encoder.encode(batch, Span(stream=0, first=0, rows=1))
    text = bytes(payloads.data).decode()
    assert text.startswith(
        '{"type":"track","userId":"u","event":"Seen","context":{"seen":"1970-01-01T00:00:00Z"},'
        '"integrations":{"All":false},"properties":{"n":5,"b":"a"},"messageId":"'
    )
