"""The one table of the six calls: their top-level fields, what they require, where the rest goes.

Source: Customer.io's Data Pipelines API. Column names match these fields in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pipeline.model import Call, Reason


class Kind(Enum):
    """What a top-level field holds on the wire."""

    ID = "id"  # a string, whatever the column's type; an empty one counts as missing
    TEXT = "text"  # a string, whatever the column's type
    TIME = "time"  # ISO 8601 with Z
    OBJECT = "object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """At least one of `fields` must be there, and be more than empty; else `reason`."""

    fields: tuple[str, ...]
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CallShape:
    """One call's place for everything.

    fields: the top-level fields beside `type`, in the order of the payload.
    rest: the object that takes every other column; None: there is none.
    events: each row is an event of its own, told apart by its timestamp where it has one.
    """

    fields: Mapping[str, Kind]
    requires: tuple[Requirement, ...]
    rest: str | None
    events: bool = False


_ID, _TEXT, _TIME, _OBJECT = Kind.ID, Kind.TEXT, Kind.TIME, Kind.OBJECT
_WHO = {"userId": _ID, "anonymousId": _ID}
_COMMON = {
    "timestamp": _TIME,
    "originalTimestamp": _TIME,
    "context": _OBJECT,
    "integrations": _OBJECT,
    "messageId": _TEXT,
}
_SOMEBODY = Requirement(fields=("userId", "anonymousId"), reason=Reason.MISSING_ID)

CALLS: Mapping[Call, CallShape] = {
    Call.IDENTIFY: CallShape(fields=_WHO | _COMMON, requires=(_SOMEBODY,), rest="traits"),
    Call.TRACK: CallShape(
        fields=_WHO | {"groupId": _ID, "event": _TEXT} | _COMMON,
        requires=(
            Requirement(fields=("userId", "anonymousId", "groupId"), reason=Reason.MISSING_ID),
            Requirement(fields=("event",), reason=Reason.MISSING_EVENT),
        ),
        rest="properties",
        events=True,
    ),
    Call.GROUP: CallShape(
        fields={"groupId": _ID} | _WHO | {"objectTypeId": _ID} | _COMMON,
        requires=(Requirement(fields=("groupId",), reason=Reason.MISSING_GROUP_ID),),
        rest="traits",
    ),
    Call.PAGE: CallShape(
        fields=_WHO | {"name": _TEXT} | _COMMON,
        requires=(_SOMEBODY,),
        rest="properties",
        events=True,
    ),
    Call.SCREEN: CallShape(
        fields=_WHO | {"name": _TEXT} | _COMMON,
        requires=(_SOMEBODY,),
        rest="properties",
        events=True,
    ),
    Call.ALIAS: CallShape(
        fields={"previousId": _ID, "userId": _ID} | _COMMON,
        requires=(
            Requirement(fields=("previousId",), reason=Reason.MISSING_PREVIOUS_ID),
            Requirement(fields=("userId",), reason=Reason.MISSING_ID),
        ),
        rest=None,
    ),
}

# Reserved: groups of Customer.io Journeys are objects of a type, "1" unless said; some of its
# destinations read the top level and some the trait, so both are sent.
OBJECT_TYPE_FIELD, OBJECT_TYPE_TRAIT, OBJECT_TYPE_DEFAULT = "objectTypeId", "object_type_id", "1"

# identify alone may go without an id: an *empty* userId and a traits.email name the person.
EMAIL_TRAIT = "email"

# The ids whose length a destination limits: Customer.io's workspaces do (Limits.id_bytes).
LIMITED_IDS = frozenset({"userId", "anonymousId", "groupId", "previousId"})
