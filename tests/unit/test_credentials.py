from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import aws, identity_pool, impersonated_credentials, pluggable
from google.auth.credentials import AnonymousCredentials
from google.oauth2 import service_account

from pipeline.errors import CredentialsError
from pipeline.source.client import Connection
from pipeline.source.credentials import load

BIGQUERY = "https://www.googleapis.com/auth/bigquery"
PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
ACTING = "sync@p.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def key() -> dict[str, str]:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "key@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    }


def external(**more: Any) -> dict[str, Any]:
    pool = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/k8s"
    return {
        "type": "external_account",
        "audience": f"{pool}/providers/oidc",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": "/var/run/token"},
    } | more


def test_a_service_accounts_key(key: dict[str, str]) -> None:
    found = load(json.dumps(key))
    assert isinstance(found, service_account.Credentials)
    assert found.service_account_email == "key@p.iam.gserviceaccount.com"
    assert list(found.scopes) == [BIGQUERY]


AWS_SOURCE = {
    "environment_id": "aws1",
    "regional_cred_verification_url": "https://sts.{region}.amazonaws.com",
}


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({}, identity_pool.Credentials),
        ({"credential_source": {"url": "http://169.254.169.254/x"}}, identity_pool.Credentials),
        (
            {
                "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request",
                "credential_source": AWS_SOURCE,
            },
            aws.Credentials,
        ),
        (
            {"credential_source": {"executable": {"command": "/bin/false"}}},
            pluggable.Credentials,
        ),
    ],
)
def test_workload_identity(more: dict[str, Any], kind: type[Any]) -> None:
    found: Any = load(json.dumps(external(**more)))
    assert type(found) is kind
    assert list(found.scopes) == [BIGQUERY]


def test_what_the_environment_gives(
    key: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "adc.json"
    file.write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    found: Any = load(None)
    assert found.service_account_email == key["client_email"]
    assert list(found.scopes) == [BIGQUERY]


def test_acting_as_another_account(key: dict[str, str]) -> None:
    found = load(json.dumps(key), ACTING)
    assert isinstance(found, impersonated_credentials.Credentials)
    assert found.service_account_email == ACTING
    assert found._target_scopes == [BIGQUERY]
    # IAM takes no narrower scope, and a key's own token is asked for with it.
    assert PLATFORM in str(found._source_credentials.scopes) or "/iam" in str(
        found._source_credentials.scopes
    )


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        "7",
        "{}",
        '{"type": "authorized_user", "refresh_token": "s3cret"}',
        '{"type": "service_account", "private_key": "s3cret", "client_email": "e"}',
        json.dumps(
            {"type": "service_account"}
            | dict.fromkeys(("private_key", "client_email", "token_uri"), "s3cret")
        ),
        '{"type": "external_account", "audience": "s3cret"}',
        '{"type": "external_account", "credential_source": "s3cret"}',
    ],
)
@pytest.mark.parametrize("impersonate", [None, ACTING])
def test_what_is_none_is_refused_and_never_shown(text: str, impersonate: str | None) -> None:
    with pytest.raises(CredentialsError, match="No usable Google credentials") as caught:
        load(text, impersonate)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_loopback_is_anonymous_unless_told(key: dict[str, str]) -> None:
    local = {"project": "p", "endpoint": "http://127.0.0.1:1"}
    assert isinstance(Connection(**local).principal(), AnonymousCredentials)
    told = Connection(**local, credentials=json.dumps(key))
    assert isinstance(told.principal(), service_account.Credentials)


def test_a_connection_does_not_show_its_key(key: dict[str, str]) -> None:
    assert "PRIVATE" not in repr(Connection(project="p", credentials=json.dumps(key)))


@pytest.mark.parametrize(
    ("compression", "storage", "compressed"),
    [
        ("auto", None, True),
        ("auto", "bigquerystorage.example:443", True),
        ("auto", "http://127.0.0.1:1", False),
        ("lz4", "http://127.0.0.1:1", True),
        ("none", None, False),
    ],
)
def test_compression(*, compression: str, storage: str | None, compressed: bool) -> None:
    made = Connection(project="p", compression=compression, storage_endpoint=storage)
    assert made.compress is compressed
