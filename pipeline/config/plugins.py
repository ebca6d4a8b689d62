"""Kinds of destinations that installed packages add, by entry points.

A package names a `DestinationKind` in the group `bigquery_reverse_etl.destinations`, under the
word that `type` then takes. Only a package whose word is used is imported. One that is broken, or
takes a word that is taken, is a fault of the configuration which names the package.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

from pydantic_core import PydanticCustomError

from pipeline.config.base import DestinationSettings
from pipeline.config.faults import wrong

if TYPE_CHECKING:  # it brings pyarrow, which reading a configuration needs not
    from pipeline.ports import Destination

GROUP = "bigquery_reverse_etl.destinations"
_REMEDY = "Upgrade or uninstall the package, or use another `type`."
_LONGEST_WORDS = 200

_Settings = TypeVar("_Settings", bound=DestinationSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationKind(Generic[_Settings]):
    """A kind of destination, as its package's entry point names it.

    settings: the model of its keys; its `type` is the entry point's name.
    make: from its name in the configuration, its settings, and what request bodies shall be
        compressed by (identity or gzip). Pure: no I/O.
    """

    settings: type[_Settings]
    make: Callable[[str, _Settings, str], Destination]


@cache
def _added() -> Mapping[str, tuple[EntryPoint, ...]]:
    """What is installed, by kind; imports nothing."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=GROUP):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def names() -> Collection[str]:
    """The kinds that packages add."""
    return _added().keys()


def forget() -> None:
    """Look again for what is installed, when next asked; for tests."""
    _added.cache_clear()


def find(kind: str, taken: Collection[str]) -> DestinationKind[Any] | None:
    """The kind of that name; None when no package adds it.

    taken: the names that are not free. Raises `wrong`, naming the package.
    """
    entries = _added().get(kind, ())
    if not entries:
        return None
    first = package(entries[0])
    if kind in taken:
        raise wrong(f"`{kind}` is a type of retl itself, and {first} adds it too.", _REMEDY)
    if len(entries) > 1:
        others = " and ".join(sorted(package(entry) for entry in entries))
        what = f"This type comes from more than one package: {others}."
        raise wrong(what, "Uninstall all but one.")
    try:
        loaded = entries[0].load()
    except Exception as error:  # whatever a package does when it is imported
        words = f"{type(error).__name__}: {error}".splitlines()[0][:_LONGEST_WORDS]
        raise wrong(
            f"This type comes from {first}, which can't be loaded ({words}).", _REMEDY
        ) from error
    flaw = _flaw(kind, loaded)
    if flaw is not None:
        raise wrong(f"This type comes from {first}, which is broken: {flaw}.", _REMEDY)
    found: DestinationKind[Any] = loaded
    return found


def settings_of(kind: object, taken: Collection[str]) -> tuple[type[DestinationSettings], ...]:
    """The model of a kind that a package adds; none where that fails or there is no such kind."""
    try:
        found = find(kind, taken) if isinstance(kind, str) else None
    except PydanticCustomError:
        return ()
    return (found.settings,) if found else ()


def package(entry: EntryPoint) -> str:
    """The package of an entry point, for messages."""
    dist = entry.dist
    return f"the package `{dist.name}` {dist.version}" if dist else f"the package of {entry.value}"


def package_of(kind: str) -> str:
    """The package that adds a kind."""
    return package(_added()[kind][0])


def _flaw(kind: str, loaded: object) -> str | None:
    """What is wrong with what an entry point names."""
    if not isinstance(loaded, DestinationKind):
        return "its entry point is no DestinationKind"
    settings = loaded.settings
    if not (isinstance(settings, type) and issubclass(settings, DestinationSettings)):
        return "its settings do not derive from DestinationSettings"
    if get_args(settings.model_fields["type"].annotation) != (kind,):
        return f'the type of its settings is not Literal["{kind}"]'
    return None
