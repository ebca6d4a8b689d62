"""Checks of values that have a grammar of their own: keys, labels, percentages, names.

Each takes the value as pydantic has typed it and gives it back, tidied, or raises `wrong`.
Pure, and never shows a value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, SecretStr

from pipeline.config.faults import wrong
from pipeline.source import parameters, template

_COLUMN_FORMS = "Write a place (`context.ip`), `{to: PLACE, as: FORMAT}`, or null to drop it."
MOST_IN_FLIGHT = 256
"""Requests in flight; more connections than that no destination welcomes."""
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", re.ASCII)
# What Google's library needs of each kind of credentials.
_CREDENTIAL_FIELDS = {
    "service_account": ("client_email", "private_key", "token_uri"),
    "external_account": ("audience", "subject_token_type", "token_url", "credential_source"),
}


def google_credentials(secret: SecretStr) -> SecretStr:
    """The JSON text of a service account's key, or of an external account."""
    text = secret.get_secret_value().strip()
    remedy = (
        "Give the file's text, normally `${file:PATH}`; "
        "leave `credentials` out for Application Default Credentials."
    )
    if not text:
        raise wrong("This is empty.", remedy)
    try:
        key = json.loads(text)
    except (ValueError, RecursionError):
        key = None
    if not isinstance(key, dict):
        # `from None` is implied: the decoder's own message would quote the text.
        raise wrong("This is not the JSON text of a key.", remedy)
    needed = _CREDENTIAL_FIELDS.get(str(key.get("type")))
    if needed is None:
        what = "This is neither the key of a service account nor an external account."
        raise wrong(what, remedy)
    missing = [name for name in needed if not key.get(name)]
    if missing:
        raise wrong(f"The key lacks {', '.join(missing)}.", f"Download it again. {remedy}")
    return SecretStr(text)


def service_account(value: str) -> str:
    """The e-mail address of a service account."""
    text = value.strip()
    if not re.fullmatch(r"[^@\s]+@[A-Za-z0-9.-]+\.gserviceaccount\.com", text, re.ASCII):
        remedy = "Write `NAME@PROJECT.iam.gserviceaccount.com`."
        raise wrong("This is not the e-mail address of a service account.", remedy)
    return text


def api_key(secret: SecretStr) -> SecretStr:
    """A key without the white space that pasting adds; it travels in an HTTP header."""
    text = secret.get_secret_value().strip()
    if not text:
        raise wrong("The key is empty.", "Set it, normally as `${CUSTOMERIO_API_KEY}`.")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise wrong("The key holds characters that no key has.", "Copy it again.")
    return SecretStr(text)


def labels(value: dict[str, str]) -> dict[str, str]:
    """BigQuery's rules for labels (cloud.google.com/bigquery/docs/labels-intro#requirements)."""
    fine = len(value) <= 64 and all(
        key and (key[0].isalpha() and _label(key)) and (not content or _label(content))
        for key, content in value.items()
    )
    if not fine:
        raise wrong(
            "BigQuery would refuse these labels.",
            "At most 64; keys start with a letter; keys and values have at most 63 of "
            "lower-case letters, digits, _ and -.",
        )
    return value


def _label(text: str) -> bool:
    return len(text) <= 63 and all(
        char in "_-" or (char.isalnum() and char == char.lower()) for char in text
    )


def directory(value: str) -> str:
    """A path of this machine, not a URI."""
    if "://" in value or not value.strip():
        raise wrong("This is no directory of this machine.", "Write a path, such as `/spool`.")
    return value


def max_rejected(value: object) -> int | str:
    """Rows, or a percentage as text with its `%`."""
    remedy = 'Write rows (`100`) or a percentage from 0% to 100% ("0.5%").'
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong("This is neither rows nor a percentage.", remedy)
    text = str(value).strip()
    percent = _PERCENT.fullmatch(text)
    if percent is not None and float(percent[1]) <= 100:
        return f"{percent[1]}%"
    if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        return int(text)
    raise wrong("This is neither rows nor a percentage.", remedy)


def concurrency(value: object) -> int | str:
    """Requests in flight, or the word that lets us find out."""
    remedy = "Write `adaptive`, or a whole number from 1 to 256."
    text = str(value).strip() if isinstance(value, int | str) else ""
    if text == "adaptive":
        return text
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        raise wrong("This is neither `adaptive` nor a whole number.", remedy)
    if int(text) < 1:
        raise wrong("This must be at least 1.", remedy)
    if int(text) > MOST_IN_FLIGHT:
        raise wrong(f"This must be at most {MOST_IN_FLIGHT}.", remedy)
    return int(text)


def column(value: object) -> object:
    """What `columns` says of one column, as its mapping: a place alone is short for `to`."""
    if isinstance(value, str):
        return {"to": place(value)}
    if value is None or isinstance(value, Mapping | BaseModel):
        return value
    raise wrong("This is neither a place nor a mapping.", _COLUMN_FORMS)


def place(value: str) -> str:
    """A name, or names with dots between them."""
    if not value:
        raise wrong("This is empty.", _COLUMN_FORMS)
    try:
        value.encode()
    except UnicodeEncodeError:  # an escape such as "\ud800"
        raise wrong("This is not text.", "Remove what is no character.") from None
    if not all(value.split(".")):
        raise wrong("This is no place.", "Write `name` or `object.name`.")
    return value


def parameter(value: object) -> object:
    """A query parameter as its mapping: a value alone is short for `value`."""
    return value if isinstance(value, Mapping | BaseModel) else {"value": value}


def variable(value: object) -> str:
    """The text of a query variable; a number counts as its digits."""
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not plain or not template.is_safe(str(value)):
        what, _, remedy = template.UNSAFE.partition(" For all")
        raise wrong(what, f"For all{remedy}")
    return str(value)


_Value = TypeVar("_Value")


def names(value: dict[str, _Value]) -> dict[str, _Value]:
    """Names that can stand in a query as `@name` and `{{name}}`."""
    if not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) for name in value):
        remedy = "Start it with a letter or `_`, and go on with letters, digits and `_`."
        raise wrong("A name here can't stand in a query.", remedy)
    return value


def variables(value: dict[str, str]) -> dict[str, str]:
    """A sync's own variables: with names that are free."""
    taken = [name for name in value if name in template.VARIABLES]
    if taken:
        raise wrong(f"`{taken[0]}` is retl's own variable.", "Choose another name.")
    return names(value)


def table(value: str) -> str:
    """`project.dataset.table` or `dataset.table`."""
    text = value.strip().replace("`", "")
    form = "Write `project.dataset.table`, or `dataset.table` in the source's project."
    if text.endswith("*") or "$" in text:
        remedy = "Use a `query`, with _TABLE_SUFFIX or the partition in its WHERE."
        raise wrong("This names several tables, or part of one.", remedy)
    if not re.fullmatch(r"(?:(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]*\.)?\w+\.[\w -]+", text):
        raise wrong("This is not the name of a table.", form)
    return text


def fields(value: list[str]) -> list[str]:
    """Columns, and fields of STRUCTs, each once."""
    if not all(re.fullmatch(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*", field) for field in value):
        raise wrong("This is not the name of a column.", "Write `column` or `column.field`.")
    return unique(value)


def moment(value: object) -> datetime:
    """A point in time, with its zone."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    try:
        found = parameters.parameter("", value, "TIMESTAMP").value
    except parameters.BadParameter:
        found = None
    if not isinstance(found, datetime):
        remedy = "Write `2026-12-01T06:00:00Z`, with `Z` or an offset."
        raise wrong("This is not a point in time.", remedy)
    return found


def unique(values: list[str]) -> list[str]:
    """A list that names nothing twice, and nothing empty."""
    if len(set(values)) != len(values):
        raise wrong("This names something twice.", "Name it once.")
    if not all(value.strip() for value in values):
        raise wrong("This holds an empty name.", "Remove it.")
    return values
