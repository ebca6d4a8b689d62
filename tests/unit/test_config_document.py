from __future__ import annotations

import datetime as dt

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import document
from pipeline.config.document import parse, scalar
from pipeline.errors import ConfigError


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(document, "_LOADER", getattr(yaml, request.param))
    return str(request.param)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("12", 12),
        ("-3", -3),
        ("0o17", 15),
        ("0x1F", 31),
        ("010", 10),
        ("1e3", 1000.0),
        (".5", 0.5),
        # What YAML 1.1 would have turned into something else:
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-12-01", "2026-12-01"),
        ("2026-12-01T06:00:00Z", "2026-12-01T06:00:00Z"),
        ("2026-99-99", "2026-99-99"),
        (".inf", ".inf"),
        ("9" * 5000, "9" * 5000),
        ("=", "="),
    ],
)
def test_plain_scalars(text: str, value: object) -> None:
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_quoted_scalars_are_text() -> None:
    data = parse("a: '12'\nb: \"true\"\nc: |\n  12\nd: !!str 12\ne: ! 12\n", "x").data
    assert data == {"a": "12", "b": "true", "c": "12\n", "d": "12", "e": "12"}


def test_keys_are_text() -> None:
    assert parse("on: 1\n2026-01-01: 2\n3: 4\n'<<': 5\n", "x").data == {
        "on": 1,
        "2026-01-01": 2,
        "3": 4,
        "<<": 5,
    }


def test_lines_are_those_of_the_keys() -> None:
    found = parse("a:\n  b: |\n    text\n  c: [1,\n    2]\n", "x")
    assert found.lines == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 4,
        ("a", "c", 0): 4,
        ("a", "c", 1): 5,
    }


def test_a_byte_order_mark_and_windows_line_ends(loader: str) -> None:
    assert loader
    assert parse("\ufeffa: 1\r\nb: x\r\n", "x").data == {"a": 1, "b": "x"}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("\n- a\n- b\n", 2, "not a mapping"),
        ("just text", 1, "not a mapping"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: [1\nb: 2\n", 2, "not YAML"),
        ("a: 1\n\tb: 2\n", 2, "not YAML"),
        ("a: b: c\n", 1, "not YAML"),
        ("a: 'x\n", 2, "not YAML"),
        ("a: 1\nb: \x01\n", 2, "control character"),
        ("a: 1\nb: *x\n", 2, "anchor"),
        ("a: &x [*x]\n", 1, "anchor"),
        ("a: &x {b: *x}\n", 1, "anchor"),
        ("a: !!python/object/apply:os.system [id]\n", 1, "tag"),
        ("a: !secret x\n", 1, "tag"),
        ("a: !!timestamp 2026-01-01\n", 1, "tag"),
        ("a: " + "[" * 60 + "]" * 60, 1, "too deeply"),
    ],
)
@pytest.mark.usefixtures("loader")
def test_broken_files(text: str, line: int, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "my.yml")
    (fault,) = caught.value.faults
    found = int(fault.where.removeprefix("my.yml, line ").split(",")[0])
    assert abs(found - line) <= (1 if "'x" in text else 0)  # where a quote would end may vary
    assert what in fault.what
    assert fault.remedy


def test_a_syntax_fault_names_the_column() -> None:
    with pytest.raises(ConfigError, match=r"^x, line 1, column 5: This is not YAML: mapping"):
        parse("a: b: c\n", "x")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("a:\n\tb: 1\n", "not tabs"),
        ("{a: ${KEY}}\n", "put `${...}` in quotes"),
        ("a: [${KEY}]\n", "put `${...}` in quotes"),
        ("a: @x\n", "in quotes"),
    ],
)
def test_the_likely_cause_of_a_syntax_fault(text: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "x")
    assert remedy in caught.value.faults[0].remedy


@pytest.mark.parametrize(
    "text",
    [
        "api_key: *hunter2secret",
        "api_key: !hunter2secret",
        "api_key: !a!hunter2secret x",
        "api_key: @hunter2secret",
        "api_key: 'hunter2secret",
        "api_key: hunter2secret: x",
        "{api_key: hunter2secret",
        "api_key: %hunter2secret",
        'api_key: "\\hunter2secret"',
        "hunter2secret",
        "- hunter2secret",
        "api_key: >hunter2secret\n",
    ],
)
@pytest.mark.usefixtures("loader")
def test_broken_yaml_never_shows_what_is_written(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "x")
    assert "hunter2secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_duplicate_keys_are_problems_and_the_first_counts() -> None:
    found = parse("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", "x")
    assert found.data == {"a": 1, "b": {"c": 1}}
    assert [(problem.path, problem.line) for problem in found.problems] == [
        (("b", "c"), 4),
        (("a",), 5),
    ]


def test_a_key_that_is_a_mapping_is_a_problem() -> None:
    found = parse("a: {{x}}\nb: 1\n", "x")
    assert found.data["b"] == 1
    assert found.problems[0].path == ("a",)
    assert "in quotes" in found.problems[0].remedy


def test_aliases_and_merges() -> None:
    text = "a: &a {x: 1, y: [2]}\nb: *a\nc:\n  <<: *a\n  x: 3\nd:\n  <<: [*a, {x: 9, z: 4}]\n"
    assert parse(text, "x").data == {
        "a": {"x": 1, "y": [2]},
        "b": {"x": 1, "y": [2]},
        "c": {"x": 3, "y": [2]},
        "d": {"x": 1, "y": [2], "z": 4},
    }


def test_copies_by_alias_are_separate() -> None:
    data = parse("a: &a [1]\nb: *a\n", "x").data
    assert data["a"] is not data["b"]


def test_a_merge_of_no_mapping_is_a_problem() -> None:
    assert "`<<`" in parse("a:\n  <<: 5\n", "x").problems[0].what


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)),
        "m0: &m0 {k: v}\n"
        + "".join(
            f"m{n}: &m{n} {{" + ", ".join(f"k{k}: *m{n - 1}" for k in range(10)) + "}\n"
            for n in range(1, 12)
        ),
    ],
)
def test_a_billion_laughs_are_bounded(text: str) -> None:
    with pytest.raises(ConfigError, match="aliases expand to too much"):
        parse(text, "x")


@pytest.mark.usefixtures("loader")
@given(st.text(alphabet="ab:-[]{}*&!|>'\"#%@`<>,? \n\t$.1~", max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        found = parse(text, "x")
    except ConfigError as error:
        assert len(error.faults) == 1  # noqa: PT017 - both ways are right
    else:
        assert isinstance(found.data, dict)
        assert dt.date not in map(type, found.data.values())
