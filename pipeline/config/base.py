"""What all models of the configuration share, and the types that several of them use."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from pipeline.config import addresses

Text = Annotated[str, StringConstraints(min_length=1)]
HttpEndpoint = Annotated[str, AfterValidator(addresses.http_endpoint)]


class Model(BaseModel):
    """What all models share."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_left_out(cls, data: Any) -> Any:
        """A section whose lines are all commented out reads as null: the defaults hold."""
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields
        return {
            key: value
            for key, value in data.items()
            if value is not None or key not in fields or fields[key].is_required()
        }


class DestinationSettings(Model):
    """The settings of a destination, whatever its kind; a package's own derive from it too.

    A subclass says `type: Literal["NAME"]`, has a docstring, and a description for every key.
    """

    PLACE: ClassVar[frozenset[str]] = frozenset({"type", "region", "endpoint", "url", "path"})
    """The keys that say where rows go, and as what: when one changes, an open run begins anew.
    None of them is secret."""

    type: str = Field(description="The kind of destination.")

    def notes(self) -> tuple[str, ...]:
        """What an operator should know of these settings though they work; no secrets."""
        return ()
