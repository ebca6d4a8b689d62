from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from pipeline.config.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("15m", 900),
        ("2h", 7200),
        ("1d", 86_400),
        ("1.5h", 5400),
        ("0.25s", 0.25),
        (" 15 M ", 900),
        ("45", 45),
        (45, 45),
        (0.5, 0.5),
        (0, 0),
        ("0", 0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "15 min",
        "15mm",
        "-1s",
        "1w",
        "1:30",
        "1e3",
        "inf",
        "nan",
        "٣s",
        "1_0s",
        "9" * 40,
        -1,
        float("inf"),
        float("nan"),
        True,
        None,
        [],
        {},
    ],
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(PydanticCustomError, match=r"`15m`"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MB", 64_000_000),
        ("64mb", 64_000_000),
        ("64 MB", 64_000_000),
        ("64MiB", 67_108_864),
        ("1GiB", 1_073_741_824),
        ("1.5kB", 1500),
        ("500KB", 500_000),
        ("2TB", 2 * 10**12),
        ("1PiB", 2**50),
        ("7B", 7),
        ("7", 7),
        (7, 7),
        (1e9, 10**9),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "MB", "1.5B", "0.1kiB", "1XB", "1MBps", "-1MB", "1M", 1.5, -1, float("inf"), False, None],
)
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(PydanticCustomError):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(900, "15m"), (25, "25s"), (0, "0s"), (0.5, "0.5s"), (86_400, "1d")]
)
def test_formatted_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(64_000_000, "64MB"), (2**20, "1MiB"), (0, "0B"), (1_001, "1001B")]
)
def test_formatted_sizes(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 2**62))
def test_a_formatted_size_parses_to_itself(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 10**6))
def test_a_formatted_duration_parses_to_itself(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
