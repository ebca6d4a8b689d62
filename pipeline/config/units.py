"""Durations, sizes and numbers as people write them.

`15m` is seconds, `64MB` is bytes (MB counts in thousands, MiB in 1,024s), and a bare number is
already in the base unit. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from pipeline.config.faults import wrong

_SECONDS: Mapping[str, int] = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_BYTES: Mapping[str, int] = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "PB": 10**15,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "PiB": 2**50,
}
_BY_LOWER = {unit.lower(): factor for unit, factor in _BYTES.items()}
# At most 30 digits, so that a hostile number costs nothing.
_QUANTITY = re.compile(r"\s*([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([A-Za-z]*)\s*", re.ASCII)

DURATION_PATTERN = r"^\s*[0-9]+(\.[0-9]+)?\s*[smhdSMHD]?\s*$"
SIZE_PATTERN = r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtTpP][iI]?)?[bB]?\s*$"


def parse_duration(value: object) -> float:
    """Seconds in `30s`, `15m`, `2h`, `1d` or a number of seconds."""
    amount, unit = _quantity(value, "a duration", "`30s`, `15m`, `2h`, `1d` or seconds")
    factor = _SECONDS.get(unit.lower() or "s")
    if factor is None:
        raise wrong("This duration has an unknown unit.", "Use s, m, h or d: `30s`, `15m`.")
    return float(amount * factor)


def parse_size(value: object) -> int:
    """Bytes in `64MB`, `1GiB`, `500kB` or a number of bytes."""
    amount, unit = _quantity(value, "a size in bytes", "`64MB`, `1GiB` or a number of bytes")
    factor = _BY_LOWER.get(unit.lower() or "b")
    if factor is None:
        raise wrong("This size has an unknown unit.", "Use B, kB, MB, GB, TB, KiB, MiB, GiB, TiB.")
    size = amount * factor
    if size != size.to_integral_value():
        raise wrong("This is not a whole number of bytes.", "Use a smaller unit.")
    return int(size)


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration: 900 -> `15m`."""
    for unit in ("d", "h", "m"):
        count, rest = divmod(seconds, _SECONDS[unit])
        if count and not rest:
            return f"{int(count)}{unit}"
    digits = f"{seconds:.6f}".rstrip("0").rstrip(".")
    return f"{digits}s"


def format_size(size: int) -> str:
    """The shortest exact way to write a size: 64000000 -> `64MB`."""
    for unit, factor in sorted(_BYTES.items(), key=lambda item: -item[1]):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def _quantity(value: object, kind: str, forms: str) -> tuple[Decimal, str]:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong(f"This must be {kind}.", f"Write {forms}.")
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value)
        if match is None:
            raise wrong(f"This is not {kind}.", f"Write {forms}.")
        return Decimal(match[1]), match[2]
    if not math.isfinite(value) or value < 0:
        raise wrong(f"This is not {kind}.", f"Write {forms}, not below 0.")
    return Decimal(str(value)), ""


def _no_bool(value: object) -> object:
    """Python counts true as 1; people don't."""
    if isinstance(value, bool):
        raise wrong("This must be a number.", "Write it in digits.")
    return value


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": DURATION_PATTERN},
                {"type": "number", "minimum": 0},
            ],
            "examples": ["30s", "15m", "2h", "1d"],
        }
    ),
]
"""Seconds."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(le=2**63 - 1),  # BigQuery keeps sizes as INT64
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": SIZE_PATTERN},
                {"type": "integer", "minimum": 0},
            ],
            "examples": ["64MB", "1GiB"],
        }
    ),
]
"""Bytes."""

NO_BOOL = BeforeValidator(_no_bool)
Whole = Annotated[int, NO_BOOL]
