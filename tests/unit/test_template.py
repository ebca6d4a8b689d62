from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.source.template import UNSAFE, VARIABLES, check, hint, is_safe, render

UNTOUCHED = [
    "SELECT 1",
    'SELECT \'{"a": {"b": 1}}\'',
    "SELECT JSON '{\"a\":{}}'",
    "SELECT '{{customer.name}}', '{{ var(\"x\") }}', '{{1}}', '{{}}', '{{ }}', '{{a b}}'",
    "SELECT REGEXP_CONTAINS(a, r'^x{2}$'), '{last_sync_time}', '{ {last_sync_time} }'",
    "SELECT '{% if last_sync_time %}', '{{a', 'b}}', '{{é}}'",
    "",
]


@pytest.mark.parametrize("query", UNTOUCHED)
def test_other_braces_are_left_alone(query: str) -> None:
    assert check(query) == []
    assert render(query, last_sync_time=5) == query


@pytest.mark.parametrize(
    ("query", "rendered"),
    [
        ("a >= {{last_sync_time}}", "a >= 100"),
        ("a >= {{ last_sync_time }}", "a >= 100"),
        ("a >= {{\n\tlast_sync_time  }}", "a >= 100"),
        ("a >= {{last_sync_timestamp}}", "a >= TIMESTAMP_SECONDS(100)"),
        ("{{last_sync_time}}{{last_sync_time}}", "100100"),
        ('\'{"a":{"b":{{last_sync_time}}}}\'', '\'{"a":{"b":100}}\''),
        ("-- since {{last_sync_time}}\nSELECT 1", "-- since 100\nSELECT 1"),
    ],
)
def test_rendering(query: str, rendered: str) -> None:
    assert check(query) == []
    assert render(query, last_sync_time=100) == rendered


@pytest.mark.parametrize(
    ("last", "lookback", "start"),
    [(100, 0, 100), (100, 30, 70), (100, 100, 0), (100, 101, 0), (0, 300, 0), (-5, 0, 0)],
)
def test_lookback_never_goes_below_zero(last: int, lookback: int, start: int) -> None:
    query = "{{last_sync_time}} {{last_sync_timestamp}}"
    rendered = render(query, last_sync_time=last, lookback=lookback)
    assert rendered == f"{start} TIMESTAMP_SECONDS({start})"


def test_unknown_variables_come_once_and_in_order() -> None:
    query = "{{b}} {{a}} {{ b }} {{last_sync_time}} {{Last_Sync_Time}}"
    assert check(query) == ["b", "a", "Last_Sync_Time"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("last_sync", "last_sync_time"),
        ("LAST_SYNC_TIME", "last_sync_time"),
        ("last_sync_timestmp", "last_sync_timestamp"),
        ("zzz", None),
    ],
)
def test_an_unknown_variable_is_named_with_the_nearest(name: str, near: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        render(f"SELECT {{{{{name}}}}}", last_sync_time=0)
    message = str(caught.value)
    assert f"{{{{{name}}}}} is not a variable" in message
    assert all(f"{{{{{known}}}}}" in message for known in VARIABLES)
    assert (f"Did you mean {{{{{near}}}}}?" in message) is (near is not None)


@given(st.text(alphabet="{} ab_'\"\n"), st.integers(0, 2**40))
def test_text_without_a_variable_is_never_changed(query: str, last: int) -> None:
    if not check(query):
        assert render(query, last_sync_time=last) == query


UNIX = "`UNIX_SECONDS(column) {} {{{{last_sync_time}}}}`"
STAMP = "`column {} {{{{last_sync_timestamp}}}}`"


@pytest.mark.parametrize("operator", ["=", "!=", "<>", "<", "<=", ">", ">="])
@pytest.mark.parametrize(
    "message",
    [
        (
            "No matching signature for operator {} for argument types: TIMESTAMP, INT64. "
            "Supported signature: ANY {} ANY at [2:7]"
        ),
        (
            "400 POST https://x: No matching signature for operator {}\n"
            "  Argument types: TIMESTAMP, INT64\n  Signature: T1 {} T1\n    Unable to find common"
        ),
    ],
)
def test_the_hint_for_comparing_a_timestamp(operator: str, message: str) -> None:
    found = hint(message.format(operator, operator))
    assert found is not None
    assert UNIX.format(operator) in found
    assert STAMP.format(operator) in found


@pytest.mark.parametrize(
    ("types", "operator", "parts"),
    [
        ("DATETIME, INT64", ">=", ["`UNIX_SECONDS(TIMESTAMP(column)) >= {{last_sync_time}}`"]),
        ("DATE, INT64", "<", ["`TIMESTAMP(column) < {{last_sync_timestamp}}`"]),
        ("INT64, TIMESTAMP", ">=", ["`column >= {{last_sync_time}}`", STAMP.format(">=")]),
        ("TIMESTAMP, INT64, TIMESTAMP", "BETWEEN", [UNIX.format(">=")]),
    ],
)
def test_other_times(types: str, operator: str, parts: list[str]) -> None:
    found = hint(f"No matching signature for operator {operator} for argument types: {types}")
    assert found is not None
    assert [part for part in parts if part not in found] == []


@pytest.mark.parametrize("name", ["UNIX_SECONDS", "UNIX_MILLIS", "UNIX_MICROS"])
@pytest.mark.parametrize("kind", ["DATETIME", "DATE"])
@pytest.mark.parametrize(
    "message",
    [
        "No matching signature for function {} for argument types: {}. Supported signature: ...",
        "No matching signature for function {}\n  Argument types: {}\n  Signature: ...",
    ],
)
def test_the_hint_for_unix_seconds(name: str, kind: str, message: str) -> None:
    found = hint(message.format(name, kind))
    assert found is not None
    assert f"`{name}(TIMESTAMP(column))`" in found


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Syntax error: Unexpected end of script at [1:7]",
        "Not found: Table p:d.t was not found in location US",
        "No matching signature for operator + for argument types: TIMESTAMP, INT64",
        "No matching signature for operator >= for argument types: STRING, INT64",
        "No matching signature for operator >= for argument types: TIMESTAMP, STRING",
        "No matching signature for function UNIX_SECONDS for argument types: STRING",
        "No matching signature for function LENGTH for argument types: DATETIME",
    ],
)
def test_no_hint_for_other_messages(message: str) -> None:
    assert hint(message) is None


OWN = {"plan": "pro", "suffix": "2026-01_02.x"}


@pytest.mark.parametrize(
    ("query", "rendered"),
    [
        ("FROM `a.events_{{suffix}}`", "FROM `a.events_2026-01_02.x`"),
        ("{{ plan }}{{last_sync_time}}", "pro7"),
        ("{{customer.plan}} '{{1}}'", "{{customer.plan}} '{{1}}'"),
    ],
)
def test_a_syncs_own_variables(query: str, rendered: str) -> None:
    assert check(query, OWN) == []
    assert render(query, last_sync_time=7, variables=OWN) == rendered


def test_an_own_variable_is_not_rendered_again() -> None:
    with pytest.raises(ConfigError):
        render("{{a}}", last_sync_time=7, variables={"a": "{{last_sync_time}}"})


def test_an_unknown_variable_may_be_near_an_own_one() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean \{\{suffix\}\}") as caught:
        render("{{sufix}}", last_sync_time=0, variables=OWN)
    assert "{{plan}} and {{suffix}}" in str(caught.value)
    assert check("{{Plan}}", OWN) == ["Plan"]


@pytest.mark.parametrize("text", ["a", "A-1_.", "2026-01-02", "-1"])
def test_text_that_is_safe(text: str) -> None:
    assert is_safe(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        "a--b",
        "---",
        "'",
        '"',
        "`",
        ";",
        "a/*",
        "#",
        "\\",
        "é",
        "(",
        "a\n",
        "$x",
        "@p",
    ],
)
def test_text_that_could_be_sql_is_refused_without_being_shown(text: str) -> None:
    assert not is_safe(text)
    with pytest.raises(ConfigError, match="use `parameters`") as caught:
        render("SELECT {{plan}}", last_sync_time=0, variables={"plan": text})
    assert str(caught.value) == f"{{{{plan}}}}: {UNSAFE}"
