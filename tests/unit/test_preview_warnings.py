"""What a workspace would cut or ignore is said in previews, and refuses nothing."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from pipeline.cli.preview import _as_dict, print_payload
from pipeline.destination.customerio import Customerio
from pipeline.destination.file import File
from pipeline.encode.encoder import CallEncoder
from pipeline.encode.layout import Rules
from pipeline.model import Call, DeadLetter, Window
from pipeline.run.report import Preview, PreviewRow
from pipeline.wiring.preview import preview_rows

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z
WINDOW = Window(start=0, sequence=1)
CUSTOMERIO = Customerio(name="cio", api_key="key")
SECRET = "what-a-row-holds-" * 100


def warned(**message: Any) -> list[str]:
    return list(CUSTOMERIO.warnings(json.dumps(message, ensure_ascii=False).encode(), NOW))


@pytest.mark.parametrize("call", ["identify", "group"])
@pytest.mark.parametrize(
    ("traits", "expected"),
    [
        ({}, []),
        ({"a" * 150: 1}, []),
        ({"a" * 151: 1}, [f"names of over 150 bytes: {'a' * 39}…"]),
        ({"é" * 75: 1}, []),
        ({"é" * 75 + "x": 1}, [f"names of over 150 bytes: {'é' * 39}…"]),
        ({"a": "x" * 1000, "b": "é" * 500, "c": None, "d": 1}, []),
        ({"a": "x" * 1001}, ["values of over 1,000 bytes: a"]),
        ({"a": "é" * 501}, ["values of over 1,000 bytes: a"]),
        ({"a": ["x" * 996]}, []),
        ({"a": ["x" * 997]}, ["values of over 1,000 bytes: a"]),
        (dict.fromkeys("abcd", SECRET), ["values of over 1,000 bytes: a, b, c and 1 more"]),
        ({f"a{index}": index for index in range(300)}, []),
        (
            {f"a{index}": index for index in range(301)},
            ["301 attributes: a workspace keeps 300 of a person or object"],
        ),
    ],
)
def test_attributes(call: str, traits: dict[str, Any], expected: list[str]) -> None:
    assert warned(type=call, userId="u", traits=traits) == expected
    assert warned(type="track", event="e", properties=traits) == []


@pytest.mark.parametrize(
    ("call", "field"), [("track", "event"), ("page", "name"), ("screen", "name")]
)
def test_event_names(call: str, field: str) -> None:
    assert warned(type=call, **{field: "x" * 100}) == []
    assert warned(type=call, **{field: "é" * 50 + "x"}) == [f"the {field} has over 100 bytes"]
    assert warned(type=call) == []


def test_event_data() -> None:
    room = 100_000 - len('{"a":""}')
    assert warned(type="track", event="e", properties={"a": "x" * room}) == []
    assert warned(type="track", event="e", properties={"a": "x" * (room + 1)}) == [
        "the properties have over 100,000 bytes"
    ]


@pytest.mark.parametrize("call", ["track", "page", "screen"])
@pytest.mark.parametrize(
    ("timestamp", "old"),
    [
        ("2023-11-11T22:13:20Z", False),
        ("2023-11-11T22:13:19Z", True),
        ("2023-11-11T22:13:19.999999Z", True),
        ("2023-11-11T22:13:20", False),
        ("2023-11-12T00:00:00+02:00", True),
        ("2030-01-01T00:00:00Z", False),
        ("0001-01-01T00:00:00Z", True),
        ("not a time", False),
    ],
)
def test_old_events(call: str, timestamp: str, *, old: bool) -> None:
    found = warned(type=call, timestamp=timestamp)
    assert found == (["older than 72 hours: it triggers no campaigns"] if old else [])
    assert warned(type="identify", timestamp=timestamp) == []


def test_several_at_once_in_a_fixed_order_and_without_values() -> None:
    traits = {f"a{index}": index for index in range(300)} | {"n" * 151: SECRET}
    found = warned(type="identify", traits=traits)
    assert [text.split()[0] for text in found] == ["301", "names", "values"]
    assert not any("what-a-row" in text for text in found)


def test_what_is_no_json_is_said_and_a_file_has_no_opinion() -> None:
    assert CUSTOMERIO.warnings(b'{"type":"identify","traits":{', NOW) == (
        "the payload is no valid JSON",
    )
    payload = json.dumps({"type": "identify", "traits": {"a": SECRET}}).encode()
    assert File(name="out").warnings(payload, NOW) == ()
    assert warned(type="alias", userId="u", previousId="p") == []


# ------------------------------------------------------------------------------- in the preview


def shown() -> Preview:
    table = pa.table({"userId": ["u", "v", None], "long": ["x", "y" * 1001, "y" * 1001]})
    encoder = CallEncoder(
        sync="users",
        call=Call.IDENTIFY,
        window=WINDOW,
        schema=table.schema,
        rules=Rules(),
        separator=b",",
        payload_bytes=32_000,
        id_bytes=150,
    )
    return Preview(
        sync="users",
        call=Call.IDENTIFY,
        window=WINDOW,
        sql="",
        bytes_processed=0,
        table=table,
        rows=preview_rows(encoder, table, CUSTOMERIO),
    )


def test_a_preview_shows_warnings_of_valid_rows() -> None:
    found: Any = _as_dict(shown())
    assert [row["warnings"] for row in found["rows"]] == [
        [],
        ["values of over 1,000 bytes: long"],
        [],
    ]
    assert [row["invalid"] and row["invalid"]["reason"] for row in found["rows"]] == [
        None,
        None,
        "missing_id",
    ]


def test_the_table_prints_them_and_control_characters_in_names_do_nothing() -> None:
    console = Console(width=200, record=True, force_terminal=False)
    rows = [*shown().rows, PreviewRow(payload=b"{}", invalid=None, warnings=("names: \x1b[2J",))]
    with console.capture() as capture:
        for index, row in enumerate(rows, start=1):
            print_payload(console, index, row)
    printed = capture.get()
    assert printed.count("warning: ") == 2
    assert "warning: values of over 1,000 bytes: long" in printed
    assert "\x1b[2J" not in printed


def test_a_warning_refuses_nothing() -> None:
    [plain, warned_row, invalid] = shown().rows
    assert (plain.invalid, warned_row.invalid) == (None, None)
    assert isinstance(invalid.invalid, DeadLetter)
