"""The YAML of a fault plan: its keys, what they may be, and what is said of those that can't."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from pipeline.errors import ConfigError
from pipeline.errors import Fault as ConfigFault
from pipeline.local.fault import LOSE, WRONG, Fault, Rule

CONNECTION = "connection"
"""As `on`: a TCP connection to the Storage Read API."""

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

_OUTCOMES = ("error", "status", "reset", "hang", "wrong", "lose", "goaway")
_VOCABULARIES = (
    ("error", GRPC_STATUSES, "a gRPC status"),
    ("wrong", WRONG, "a kind of wrong answer"),
    ("lose", LOSE, "something to lose"),
)
_HTTP_DATE = re.compile(r"http-date(?: (\d{1,6}))?")
_HTTP_DATE_SECONDS = 2  # A date has whole seconds: one second ahead may be over at once.
_DAY = 86_400.0
_CHOICES = {  # What is said of keys that take several kinds of values.
    "times": "neither a count from 1 on nor `always`",
    "retry_after": "neither seconds nor `http-date [seconds]`",
}


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
    wrong: str | None = None
    lose: str | None = None
    goaway: bool = False
    after_bytes: Annotated[int | None, Field(ge=0)] = None
    bytes_per_second: Annotated[float | None, Field(gt=0)] = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        outcomes = [name for name in _OUTCOMES if getattr(self, name)]
        for key, known, what in _VOCABULARIES:
            if getattr(self, key) is not None and getattr(self, key) not in known:
                raise ValueError(f"{key}: not {what} ({', '.join(sorted(known))})")
        if len(outcomes) > 1:
            raise ValueError(f"{outcomes[1]}: stands beside {outcomes[0]}; keep one of them")
        if not outcomes and self.delay is None and self.bytes_per_second is None:
            raise ValueError(f"does nothing; set one of {', '.join(_OUTCOMES)}, delay")
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
            wrong=self.wrong,
            lose=self.lose,
            goaway=self.goaway,
            after_bytes=self.after_bytes or 0,
            bytes_per_second=self.bytes_per_second,
        )

    @property
    def of_connections(self) -> str | None:
        """A key that only a connection can meet."""
        keys = ("goaway", "after_bytes", "bytes_per_second")
        return next((key for key in keys if getattr(self, key)), None)


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
        if self.on != CONNECTION and self.do.of_connections:
            raise ValueError(f"do: {self.do.of_connections}: stands without `on: {CONNECTION}`")
        return self

    def rule(self) -> Rule:
        once = self.times is None and self.every is None and self.share is None
        return Rule(
            on=self.on,
            fault=self.do.fault(),
            after=self.after,
            times=1 if once else None if self.times == "always" else self.times,
            every=self.every,
            share=self.share,
            seed=self.seed or 0,
        )


_RULES = TypeAdapter(list[_Written])


def parse(text: str) -> list[Rule]:
    """The rules of a plan. Raises ConfigError that names every wrong rule and key."""
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
