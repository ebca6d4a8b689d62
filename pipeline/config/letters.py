"""The section `dead_letters`: what is kept of rows that could not be delivered."""

from __future__ import annotations

import base64
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from pipeline.config.base import Model
from pipeline.config.faults import wrong
from pipeline.model import Kept

_KEY_BYTES = 32  # of a Fernet key: half to sign, half to encrypt


def _keys(secret: SecretStr) -> SecretStr:
    """Fernet keys, separated by commas."""
    for key in _split(secret):
        try:
            fits = len(base64.b64decode(key, altchars=b"-_", validate=True)) == _KEY_BYTES
        except ValueError:  # of the alphabet, the padding, or not ASCII
            fits = False
        if not fits:
            raise wrong(
                "This is not a Fernet key.",
                "Make one: `python -c 'from cryptography.fernet import Fernet; "
                "print(Fernet.generate_key().decode())'`.",
            )
    return secret


def _split(secret: SecretStr) -> list[str]:
    return [key.strip() for key in secret.get_secret_value().split(",")]


class DeadLettersConfig(Model):
    """What is kept of rows that are invalid or rejected."""

    payload: Kept = Field(
        default=Kept.FULL,
        description="`full` keeps a row's JSON, so that it can be looked at, exported and "
        "replayed; `ids` only type, messageId, userId, anonymousId, groupId and previousId; `none` "
        "nothing of it. Reason, message and place in the source are kept always.",
    )
    key: Annotated[SecretStr, AfterValidator(_keys)] | None = Field(
        default=None,
        description="Fernet key that payloads are encrypted with in the state, normally "
        "`${file:PATH}`. Several, separated by commas: the first encrypts, all decrypt. Left out: "
        "not encrypted.",
    )

    @property
    def keys(self) -> list[str]:
        """The keys; empty when there is none."""
        return _split(self.key) if self.key is not None else []
