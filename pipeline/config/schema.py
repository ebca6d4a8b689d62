"""The JSON Schema of the file, for editors: completion, descriptions and checks while typing.

Any value may be written as `${...}`; so where the models want a number or one of some words,
the schema also takes a string that holds one. `version` and `type` stay strict: they tell formats
and kinds apart.
"""

from __future__ import annotations

from typing import Any

from pipeline.config.models import Config

INSERTED = {"type": "string", "pattern": r"\$\{.+\}"}
_NOTES = ("title", "description", "default", "examples")


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of retl.yml."""
    schema = Config.model_json_schema()
    opened = _open(schema)
    opened["$defs"] = {name: _open(model) for name, model in schema["$defs"].items()}
    opened["title"] = "retl.yml"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **opened}


def _open(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema, also taking inserted values wherever they may stand."""
    opened = dict(schema)
    for group in ("properties", "patternProperties"):
        if group in schema:
            opened[group] = {key: _open(one) for key, one in schema[group].items()}
    if "patternProperties" in schema:  # which by itself lets every other name pass
        opened["additionalProperties"] = False
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            opened[inner] = _open(schema[inner])
    choices = schema.get("anyOf", ())
    if any(_is_closed(one) for one in choices):
        opened["anyOf"] = [*choices, INSERTED]
    elif choices:
        opened["anyOf"] = [_open(one) for one in choices]
    if not _is_closed(schema):
        return opened
    notes = {key: opened.pop(key) for key in _NOTES if key in opened}
    return {**notes, "anyOf": [opened, INSERTED]}


def _is_closed(schema: dict[str, Any]) -> bool:
    """Whether this is the schema of a scalar that text with `${...}` in it can't match."""
    kind = schema.get("type")
    if "const" in schema:
        return False
    return kind in {"boolean", "integer", "number"} or (
        kind == "string" and ("enum" in schema or "pattern" in schema)
    )
