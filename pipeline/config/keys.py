"""Which keys there are: the models walked as a tree.

For messages (which keys a mapping takes), for environment variables and for the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import get_args, get_origin

from pydantic.fields import FieldInfo

from pipeline.config import plugins
from pipeline.config.base import Model
from pipeline.config.destinations import BUILT_IN
from pipeline.config.faults import Path
from pipeline.config.models import Config


def models_in(annotation: object) -> tuple[type[Model], ...]:
    """The models that a field's type may hold, by itself, in a union or by name."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return (annotation,)
    return tuple(model for part in get_args(annotation) for model in models_in(part))


def is_named(annotation: object) -> bool:
    """Whether a field holds models by names of the user's choice."""
    return get_origin(annotation) is dict and bool(models_in(annotation))


def is_scalar(annotation: object) -> bool:
    """Whether a field's value is one word, number or text, so that a variable can hold it."""
    if models_in(annotation) or get_origin(annotation) in {dict, list}:
        return False
    return all(is_scalar(part) for part in get_args(annotation) if not isinstance(part, str))


def fields_of(model: type[Model]) -> Mapping[str, FieldInfo]:
    """The keys of a model as they are written, and what they hold."""
    return {one.alias or name: one for name, one in model.model_fields.items()}


def kind_of(model: type[Model]) -> str:
    """The value of `type` that selects the model; empty for models that need none."""
    kind = model.model_fields.get("type")
    return str(get_args(kind.annotation)[0]) if kind and kind.is_required() else ""


def models_at(path: Path, data: object) -> tuple[type[Model], ...]:
    """The models that the mapping at `path` may be; `type` in `data` decides between several."""
    models: tuple[type[Model], ...] = (Config,)
    parts = iter(path)
    for part in parts:
        data = data.get(part) if isinstance(data, dict) else None
        key = str(part)
        fields = [fields_of(model)[key] for model in models if key in fields_of(model)]
        models = tuple(m for one in fields for m in models_in(one.annotation))
        if any(is_named(one.annotation) for one in fields):
            name = next(parts, None)
            data = data.get(name) if isinstance(data, dict) else None
            kind = data.get("type") if isinstance(data, dict) else None
            models = tuple(m for m in models if kind_of(m) == kind) or models
            if key == "destinations":
                models = plugins.settings_of(kind, BUILT_IN) or models
    return models


def known_keys(path: Path, data: object) -> list[str]:
    """The keys that the mapping at `path` takes."""
    return list(dict.fromkeys(key for model in models_at(path, data) for key in fields_of(model)))


def scalars(model: type[Model], path: Path = ()) -> Iterator[tuple[Path, FieldInfo]]:
    """The scalar keys of a model and of the models inside it, named ones aside."""
    for key, one in fields_of(model).items():
        if is_named(one.annotation) or key in {"version", "type"}:
            continue
        for inner in models_in(one.annotation):
            yield from scalars(inner, (*path, key))
        if is_scalar(one.annotation):
            yield (*path, key), one


@cache
def tunables() -> Mapping[Path, FieldInfo]:
    """Every scalar key outside sources, destinations and syncs."""
    return dict(scalars(Config))
