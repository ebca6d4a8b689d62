"""Fault plans: what the local services do wrong, and when, from commented YAML.

Rules of this file: no I/O, no clock, no waiting; it decides and the servers act. The same plan
and the same order of calls give the same faults, also the random ones. Rules are tried in the
order of the file and the first that is due wins. What a name in `on` stands for (`batch`,
`read_rows`, ...) is the servers' business.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from pipeline.local.fault import Fault, Rule
from pipeline.local.faults_yaml import CONNECTION, parse

__all__ = ["CONNECTION", "EVERY_CALL", "Fault", "FaultPlan"]

EVERY_CALL = "*"
"""As `on`: any call, but no connection."""


class FaultPlan:
    """Rules, and how often each was met. Safe to share between threads.

    A plan is a list of rules; `on` and `do` are required:

    ```yaml
    - on: batch                # the name of a call; "*": any
      after: 10                # skip the first ten matching calls (default 0)
      times: 3                 # then fail three (default 1; with every or share: always)
      do: {status: 429, retry_after: 2}
    - on: batch
      every: 7                 # each seventh matching call ...
      do: {reset: true, taken: true}
    - on: read_rows
      share: 0.1               # ... or a tenth of them, drawn with a seed (default 0)
      seed: 42
      do: {error: UNAVAILABLE, message: "try again", after_messages: 3, delay: 0.5}
    - on: connection           # TCP, to the Storage Read API
      do: {reset: true, after_bytes: 100000}
    ```

    Keys of `do` are the fields of Fault, `retry_after` being seconds or `http-date [seconds]`
    (a date so far ahead, by default 2 s). `taken` is true by default with a 2xx status.
    """

    def __init__(self) -> None:
        """Make an empty plan; others come from `parse`."""
        self.text = ""
        self._rules: list[Rule] = []
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    @classmethod
    def parse(cls, text: str) -> FaultPlan:
        """Make a plan from YAML. Raises ConfigError that names every wrong rule and key."""
        plan = cls()
        plan.text = text
        plan._rules = parse(text)
        return plan

    def __bool__(self) -> bool:
        return bool(self._rules)

    def next(self, on: str) -> Fault | None:
        """Count a call of this name; the fault it is to meet, or None."""
        if not self._rules:
            return None
        with self._lock:
            self._seen[on] += 1
            winner: Rule | None = None
            for rule in self._rules:
                # Every rule counts every matching call, so that none shifts another's count.
                met = rule.on == on or (rule.on == EVERY_CALL and on != CONNECTION)
                if met and rule.due() and winner is None:
                    winner = rule
            if winner is None:
                return None
            winner.fired += 1
            return winner.fault

    def mentions(self, on: str) -> bool:
        """Whether a rule names these calls."""
        return any(rule.on == on for rule in self._rules)

    def seen(self) -> Mapping[str, int]:
        """Calls so far, by name; an empty plan counts nothing."""
        with self._lock:
            return dict(self._seen)

    def fired(self) -> tuple[int, ...]:
        """How many faults each rule has given, in the order of the file."""
        with self._lock:
            return tuple(rule.fired for rule in self._rules)
