"""Fault plans: what the local services do wrong, and when, from commented YAML.

Rules of this file: no I/O, no clock, no waiting; it decides and the servers act. The same plan
and the same order of calls give the same faults, also the random ones. Rules are tried in the
order of the file and the first that is due wins. What a name in `on` stands for (`batch`,
`read_rows`, ...) is the servers' business.
"""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from pipeline.errors import ConfigError
from pipeline.errors import Fault as ConfigFault

EVERY_CALL = "*"
"""As `on`: any call."""

GRPC_STATUSES = frozenset(
    (
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    )
)

_HTTP_DATE = re.compile(r"http-date(?: (\d{1,6}))?")
_HTTP_DATE_SECONDS = 2  # A date has whole seconds: one second ahead may be over at once.
_DAY = 86_400.0
_CHOICES = {  # What is said of keys that take several kinds of values.
    "times": "neither a count from 1 on nor `always`",
    "retry_after": "neither seconds nor `http-date [seconds]`",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is to go wrong with one call.

    At most one of error, status, reset and hang is set; none of them: a mere delay.

    error: a gRPC status by name, with `message`.
    delay: seconds to wait first.
    hang: never answer, and keep the connection.
    reset: cut the connection without an answer.
    status: an HTTP status, with `body` as it is (None: the server's own for the status).
    retry_after: seconds until the call may come again; retry_date: said as an HTTP date.
    after_messages: let so many messages of a stream pass before.
    taken: the work is done all the same, and only the answer is wrong.
    """

    error: str | None = None
    message: str = ""
    delay: float = 0.0
    hang: bool = False
    reset: bool = False
    status: int | None = None
    retry_after: float | None = None
    retry_date: bool = False
    body: str | None = None
    after_messages: int | None = None
    taken: bool = False


@dataclass(slots=True, kw_only=True)
class _Rule:
    """One rule with its counters; `seen` counts matching calls, `fired` the faults given."""

    on: str
    fault: Fault
    after: int = 0
    times: int | None = 1
    every: int | None = None
    share: float | None = None
    seed: int = 0
    seen: int = 0
    fired: int = 0
    draws: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draws = random.Random(self.seed)  # noqa: S311  # reproducible on purpose

    def due(self) -> bool:
        """Count a matching call; whether it is one to fail."""
        self.seen += 1
        position = self.seen - self.after
        if position < 1:
            return False
        if self.every is not None:
            chosen = position % self.every == 0
        elif self.share is not None:
            chosen = self.draws.random() < self.share
        else:
            chosen = True
        return chosen and (self.times is None or self.fired < self.times)


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
    ```

    Keys of `do` are the fields of Fault, `retry_after` being seconds or `http-date [seconds]`
    (a date so far ahead, by default 2 s). `taken` is true by default with a 2xx status.
    """

    def __init__(self) -> None:
        """Make an empty plan; others come from `parse`."""
        self.text = ""
        self._rules: list[_Rule] = []
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    @classmethod
    def parse(cls, text: str) -> FaultPlan:
        """Make a plan from YAML. Raises ConfigError that names every wrong rule and key."""
        plan = cls()
        plan.text = text
        plan._rules = _parse(text)
        return plan

    def __bool__(self) -> bool:
        return bool(self._rules)

    def next(self, on: str) -> Fault | None:
        """Count a call of this name; the fault it is to meet, or None."""
        if not self._rules:
            return None
        with self._lock:
            self._seen[on] += 1
            winner: _Rule | None = None
            for rule in self._rules:
                # Every rule counts every matching call, so that none shifts another's count.
                if rule.on in (on, EVERY_CALL) and rule.due() and winner is None:
                    winner = rule
            if winner is None:
                return None
            winner.fired += 1
            return winner.fault

    def seen(self) -> Mapping[str, int]:
        """Calls so far, by name; an empty plan counts nothing."""
        with self._lock:
            return dict(self._seen)

    def fired(self) -> tuple[int, ...]:
        """How many faults each rule has given, in the order of the file."""
        with self._lock:
            return tuple(rule.fired for rule in self._rules)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 booleans: in YAML 1.1 the key `on` would be the boolean true."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:bool"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class _Do(_Model):
    """The `do` of a rule as it is written."""

    error: str | None = None
    message: str | None = None
    delay: Annotated[float | None, Field(ge=0, le=_DAY)] = None
    hang: bool = False
    reset: bool = False
    status: Annotated[int | None, Field(ge=200, le=599)] = None
    retry_after: Annotated[float, Field(ge=0, le=_DAY)] | str | None = None
    body: str | None = None
    after_messages: Annotated[int | None, Field(ge=0)] = None
    taken: bool | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        outcomes = [n for n in ("error", "status", "reset", "hang") if getattr(self, n)]
        if self.error is not None and self.error not in GRPC_STATUSES:
            raise ValueError(f"error: not a gRPC status ({', '.join(sorted(GRPC_STATUSES))})")
        if len(outcomes) > 1:
            raise ValueError(f"{outcomes[1]}: stands beside {outcomes[0]}; keep one of them")
        if not outcomes and self.delay is None:
            raise ValueError("does nothing; set one of error, status, reset, hang, delay")
        needs = {"message": ("error",), "body": ("status",), "retry_after": ("status", "error")}
        for key, owners in needs.items():
            if getattr(self, key) is not None and not set(owners) & set(outcomes):
                raise ValueError(f"{key}: stands without {' or '.join(owners)}")
        if isinstance(self.retry_after, str) and not _HTTP_DATE.fullmatch(self.retry_after):
            raise ValueError(f"retry_after: {_CHOICES['retry_after']}")
        return self

    def fault(self) -> Fault:
        after, is_date = self.retry_after, False
        if isinstance(after, str):
            match = _HTTP_DATE.fullmatch(after)
            after, is_date = float((match and match[1]) or _HTTP_DATE_SECONDS), True
        answers_well = self.status is not None and self.status < 300
        return Fault(
            error=self.error,
            message=self.message or "",
            delay=self.delay or 0.0,
            hang=self.hang,
            reset=self.reset,
            status=self.status,
            retry_after=after,
            retry_date=is_date,
            body=self.body,
            after_messages=self.after_messages,
            taken=answers_well if self.taken is None else self.taken,
        )


class _Written(_Model):
    """A rule as it is written."""

    on: Annotated[str, Field(min_length=1)]
    do: _Do
    after: Annotated[int, Field(ge=0)] = 0
    times: Annotated[int, Field(ge=1)] | Literal["always"] | None = None
    every: Annotated[int | None, Field(ge=1)] = None
    share: Annotated[float | None, Field(ge=0, le=1)] = None
    seed: int | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.every is not None and self.share is not None:
            raise ValueError("share: stands beside every; keep one of them")
        if self.seed is not None and self.share is None:
            raise ValueError("seed: stands without share")
        return self

    def rule(self) -> _Rule:
        once = self.times is None and self.every is None and self.share is None
        return _Rule(
            on=self.on,
            fault=self.do.fault(),
            after=self.after,
            times=1 if once else None if self.times == "always" else self.times,
            every=self.every,
            share=self.share,
            seed=self.seed or 0,
        )


_RULES = TypeAdapter(list[_Written])


def _parse(text: str) -> list[_Rule]:
    try:
        # A SafeLoader: it makes nothing but plain values.
        document = yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not readable"
        raise ConfigError(f"fault plan: not valid YAML{place}: {problem}.") from None
    try:
        return [written.rule() for written in _RULES.validate_python(document or [])]
    except ValidationError as error:
        faults = [_explain(detail["loc"], detail["msg"]) for detail in error.errors()]
        # A value that fits none of several kinds is reported once for each of them.
        raise ConfigError(list({fault.where: fault for fault in faults}.values())) from None


def _explain(loc: tuple[int | str, ...], text: str) -> ConfigFault:
    """A fault of the plan, by rule number and key."""
    if not loc:
        return ConfigFault("fault plan", "not a list of rules.", "Begin each with `- on: NAME`.")
    # After the keys come pydantic's own names for the kinds of a value that has several.
    keys = [str(key) for key in loc[1:] if key in {*_Written.model_fields, *_Do.model_fields}]
    remedy = ""
    if text.startswith("Extra inputs"):
        model: type[_Model] = _Do if "do" in keys else _Written
        keys = [str(key) for key in loc[1:]]
        text, remedy = "unknown key", f"Known are: {', '.join(model.model_fields)}."
    elif text.startswith("Input should be a valid dictionary"):
        text, remedy = "not a mapping", "Write `on: NAME` and `do: {...}`."
    elif keys:
        text = _CHOICES.get(keys[-1], text)
    where = f"fault plan, rule {int(loc[0]) + 1}"
    if keys:
        where += ": " + ".".join(keys)
    return ConfigFault(where, text.removeprefix("Value error, ") + ".", remedy)
