"""Errors of Google's token servers: a refusal is the fault of the credentials, silence is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from google.auth import compute_engine
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError

from pipeline.errors import CredentialsError, PipelineError, SourceError
from pipeline.source.faults import translated


@dataclass
class Answer:
    """What the metadata server says."""

    status: int
    data: bytes = b"no"
    headers: dict[str, str] = field(default_factory=dict)


def of_refresh(answer: Answer) -> PipelineError:
    """What comes of it where a pod's own credentials are refreshed."""

    def request(**_: Any) -> Answer:
        return answer

    credentials: Any = compute_engine.Credentials()  # type: ignore[no-untyped-call]
    with pytest.raises(PipelineError) as caught, translated("sync users"):
        credentials.refresh(request)
    return caught.value


@pytest.mark.parametrize("status", [403, 404])
def test_a_metadata_server_that_refuses_is_the_credentials_fault(status: int) -> None:
    assert isinstance(of_refresh(Answer(status)), CredentialsError)


def unreachable() -> RefreshError:
    """As Google's library says that no metadata server is there."""
    error = RefreshError("no metadata server")  # type: ignore[no-untyped-call]
    error.__cause__ = TransportError("no metadata server")  # type: ignore[no-untyped-call]
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (unreachable(), SourceError),
        (TransportError("reset"), SourceError),  # type: ignore[no-untyped-call]
        (RefreshError("503", retryable=True), SourceError),  # type: ignore[no-untyped-call]
        (RefreshError("invalid_grant"), CredentialsError),  # type: ignore[no-untyped-call]
        (DefaultCredentialsError("none"), CredentialsError),  # type: ignore[no-untyped-call]
    ],
)
def test_only_what_judged_the_credentials_is_their_fault(
    error: Exception, kind: type[PipelineError]
) -> None:
    with pytest.raises(kind, match="sync users"), translated("sync users"):
        raise error
