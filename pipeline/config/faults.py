"""What is wrong with a configuration, in words for its author.

Turns pydantic's errors into Faults: a YAML path, what is wrong, and the remedy. Rules: a value
is never shown, because it may be a secret or come from the environment; keys, names of variables
and the words that would be accepted are. Knows no file and no environment.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError

Path = tuple[str | int, ...]
"""Keys and list positions from the top of the file down to a value."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault whose place in the file is still a path. line: where that is not the path's."""

    path: Path
    what: str
    remedy: str
    line: int | None = None


def wrong(what: str, remedy: str) -> PydanticCustomError:
    """The error that a validator of the models raises; neither text may hold the value."""
    return PydanticCustomError("wrong", "{what} {remedy}", {"what": what, "remedy": remedy})


def dotted(path: Path) -> str:
    """A path as people write it: `syncs.users.destinations[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def listed(names: Iterable[str]) -> str:
    """Names in backquotes, with commas."""
    return ", ".join(f"`{name}`" for name in names)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, whatever its case; None when none is near."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def choose(name: object, known: Sequence[str]) -> str:
    """The remedy for a word that is none of `known`: the nearest, and all if they are few."""
    near = nearest(name, known) if isinstance(name, str) else None
    start = f"Did you mean `{near}`? " if near else ""
    if near and len(known) > 6:
        return start.rstrip()
    return f"{start}Use {'one of ' if len(known) > 1 else ''}{listed(known)}."


def explain(error: Mapping[str, Any], known: Sequence[str]) -> tuple[str, str]:
    """What is wrong and the remedy, for one of pydantic's error details.

    known: the keys that the mapping of an unknown key takes, else the words the value may be.
    """
    context: Mapping[str, Any] = error.get("ctx", {})
    value = context.get("tag", error.get("input"))
    empty = value is None or value == ""
    kind: str = error["type"]
    if kind == "wrong":
        return context["what"], context["remedy"]
    if kind == "missing":
        return "This key is missing.", "Add it."
    if kind == "extra_forbidden":
        return "This key is not known.", choose(error["loc"][-1], known)
    if kind == "union_tag_not_found":
        return "`type` is missing.", f"Add `type`: one of {listed(known)}."
    if kind in {"union_tag_invalid", "literal_error", "enum"}:
        return "This is not a value that is known here.", choose(value, known)
    if kind == "string_pattern_mismatch":  # of names; other patterns have their own validators
        return (
            "This name can't be used.",
            "Start with a lower-case letter, then up to 62 of a-z, 0-9, _ and -.",
        )
    bound = next((context[key] for key in ("ge", "gt", "le", "lt") if key in context), None)
    phrase = _PHRASES.get(kind)
    if phrase is None:
        return "This value can't be used.", "See docs/configuration.md."
    what, remedy = phrase
    if empty and kind not in {"string_too_short", "too_short"}:
        what = "This is empty."
    return what, remedy.format(bound=_number(bound))


def _number(bound: object) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


_TEXT = ("This must be text.", "Put the value in quotes.")
_MAPPING = ("This must be a mapping.", "Write `key: value` lines below it, indented.")
_LIST = ("This must be a list.", "Write it as `[a, b]`, or one `- item` a line.")
_WHOLE = ("This must be a whole number.", "Write it in digits.")
_NUMBER = ("This must be a number.", "Write it in digits.")

_TRUTH = ("This must be true or false.", "Write `true` or `false`.")

_PHRASES: Mapping[str, tuple[str, str]] = {
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "string_type": _TEXT,
    "string_too_short": ("This is empty.", "Give it a value."),
    "too_short": ("This is empty.", "Declare at least one."),
    "dict_type": _MAPPING,
    "mapping_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "list_type": _LIST,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "greater_than": ("This is too small.", "It must be more than {bound}."),
    "greater_than_equal": ("This is too small.", "It must be at least {bound}."),
    "less_than": ("This is too large.", "It must be less than {bound}."),
    "less_than_equal": ("This is too large.", "It must be at most {bound}."),
}
