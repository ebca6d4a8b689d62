"""The series of a metric by their labels, and the registry that shows all as of one moment."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric

from pipeline.metrics.table import Described

# Different values of one label, beside those known before; more can only be a mistake.
_MOST_VALUES = 32
_WORD = re.compile(r"[a-z0-9_]{1,40}")


class Registry(CollectorRegistry):
    """Collects under the observer's lock, and leaves `_created` out: it doubles the series."""

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__()
        self._events = lock

    def collect(self) -> Iterator[Metric]:
        """All metrics as of one moment."""
        with self._events:
            found = list(super().collect())
        for metric in found:
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
        return iter(found)


class Series:
    """One metric, its children kept by label values, so that an event costs no look-up by name."""

    def __init__(self, described: Described, registry: CollectorRegistry) -> None:
        make = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}[described.kind]
        more = {"buckets": described.buckets} if described.buckets else {}
        self._metric: Any = make(
            described.name, described.text, described.labels, registry=registry, **more
        )
        self._children: dict[tuple[str, ...], Any] = {}
        self._known = {word for value in described.values for word in value.split()}
        self._met: set[str] = set()
        self._first = [tuple(value.split()) for value in described.values] or [()]

    def __call__(self, *labels: str) -> Any:
        """The one with these labels, of prometheus_client's kind."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels)
        return child

    def words(self, *labels: str) -> tuple[str, ...]:
        """The labels as they may be shown: `other` for what is no word, or one too many."""
        return tuple(word if self._admits(word) else "other" for word in labels)

    def _admits(self, word: str) -> bool:
        if word in self._known or word in self._met:
            return True
        if len(self._met) >= _MOST_VALUES or not _WORD.fullmatch(word):
            return False
        self._met.add(word)
        return True

    def appear(self, *labels: str) -> None:
        """Show the series with value 0, for every value known before."""
        for more in self._first:
            self(*labels, *more)
