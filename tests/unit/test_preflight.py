"""Who we are, and what a refusal lacks, with the command that mends it; never a key in it."""

from __future__ import annotations

import http.server
import json
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import compute_engine, impersonated_credentials
from google.auth.credentials import AnonymousCredentials
from google.oauth2 import credentials as user_credentials

from pipeline.errors import ConfigError, CredentialsError, PipelineError, SourceError
from pipeline.findings import Finding, Outcome
from pipeline.source.client import Connection
from pipeline.source.preflight import (
    JOBS_CREATE,
    SESSIONS_CREATE,
    TABLES_GET_DATA,
    Preflight,
    principal,
)

ABOUT = "source warehouse"
EMAIL = "robot@my-project.iam.gserviceaccount.com"
NOBODY = "http://127.0.0.1:9"


@contextmanager
def server(status: int, body: bytes = b"{}") -> Iterator[str]:
    """Answers everything alike; its answers carry a Date."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_POST  # noqa: N815 - the base class's names

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_address[1]}"
        finally:
            served.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def pem() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def service_account(pem: str, token_uri: str) -> str:
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "my-project",
            "private_key_id": "id",
            "private_key": pem,
            "client_email": EMAIL,
            "client_id": "1",
            "token_uri": token_uri,
        }
    )


def preflight(
    endpoint: str | None = NOBODY,
    credentials: str | None = None,
    location: str | None = None,
    clock: Callable[[], float] = time.time,
) -> Preflight:
    connection = Connection(
        project="my-project", endpoint=endpoint, credentials=credentials, location=location
    )
    return Preflight(connection, about=ABOUT, clock=clock)


def known(pem: str, location: str | None = None) -> Preflight:
    one = preflight(credentials=service_account(pem, NOBODY), location=location)
    assert one.credentials().outcome is Outcome.OK
    return one


def grant(finding: Finding) -> list[str]:
    return shlex.split(finding.command)


# ------------------------------------------------------------------------------ who we are


@pytest.mark.parametrize(
    ("credentials", "text", "member"),
    [
        (AnonymousCredentials(), "anonymous, on this machine", "serviceAccount:EMAIL"),
        (compute_engine.Credentials(), "attached service account", "serviceAccount:EMAIL"),
        (
            compute_engine.Credentials(service_account_email=EMAIL),
            f"attached service account {EMAIL}",
            f"serviceAccount:{EMAIL}",
        ),
        (user_credentials.Credentials("the-token"), "user", "user:EMAIL"),
        (
            user_credentials.Credentials("the-token", account="ann@example.com"),
            "user ann@example.com",
            "user:ann@example.com",
        ),
        (
            impersonated_credentials.Credentials(
                source_credentials=AnonymousCredentials(),
                target_principal=EMAIL,
                target_scopes=[],
            ),
            f"impersonated service account {EMAIL}",
            f"serviceAccount:{EMAIL}",
        ),
    ],
)
def test_kinds_of_credentials(credentials: object, text: str, member: str) -> None:
    found = principal(credentials)  # type: ignore[arg-type]  # google-auth's constructors are untyped
    assert str(found) == text
    assert found.member == member


def test_a_key_is_named_by_its_account(pem: str) -> None:
    found = preflight(credentials=service_account(pem, NOBODY)).credentials()
    assert found.outcome is Outcome.OK
    assert found.what == f"service account {EMAIL}"


def test_a_damaged_key_is_refused_and_not_shown() -> None:
    text = '{"type": "service_account", "private_key": "the-secret"}'
    found = preflight(credentials=text).credentials()
    assert found.outcome is Outcome.FAILED
    assert found.exit_code == 77
    assert "the-secret" not in str(found)


# ------------------------------------------------------------------------------ a token


def test_nobody_is_asked_for_a_token_on_this_machine() -> None:
    one = preflight()
    one.credentials()
    assert one.token().outcome is Outcome.SKIPPED


def test_a_token_is_got(pem: str) -> None:
    body = b'{"access_token": "the-token", "expires_in": 3600, "token_type": "Bearer"}'
    with server(200, body) as url:
        one = preflight(credentials=service_account(pem, f"{url}/token"))
        one.credentials()
        found = one.token()
    assert found.outcome is Outcome.OK
    assert EMAIL in found.what
    assert "the-token" not in str(found)


def test_a_token_is_refused(pem: str) -> None:
    body = b'{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}'
    with server(400, body) as url:
        one = preflight(credentials=service_account(pem, f"{url}/token"))
        one.credentials()
        found = one.token()
    assert found.outcome is Outcome.FAILED
    assert found.exit_code == 77
    assert "deleted or disabled" in found.what
    assert "PRIVATE KEY" not in str(found)


def test_a_token_server_that_is_down_is_temporary(pem: str) -> None:
    one = preflight(credentials=service_account(pem, f"{NOBODY}/token"))
    one.credentials()
    found = one.token()
    assert found.outcome is Outcome.FAILED
    assert found.exit_code == 75


# ------------------------------------------------------------------------------ the clock


@pytest.mark.parametrize(
    ("ahead", "outcome", "what"),
    [
        (0, Outcome.OK, "the same"),
        (20, Outcome.OK, "ahead of"),
        (60, Outcome.WARNING, "ahead of"),
        (-3600, Outcome.WARNING, "behind"),
    ],
)
def test_the_clock_is_held_against_the_server_s(ahead: float, outcome: Outcome, what: str) -> None:
    with server(404) as url:
        found = preflight(url, clock=lambda: time.time() + ahead).clock()
    assert found.outcome is outcome
    assert what in found.what
    assert found.exit_code == 0


def test_no_server_no_clock() -> None:
    found = preflight(NOBODY).clock()
    assert found.outcome is Outcome.FAILED
    assert found.exit_code == 75


# ------------------------------------------------------------------------------ permissions

_ROLES = " It takes roles/bigquery.jobUser and roles/bigquery.readSessionUser on the project."
NO_JOBS = (
    "sync users: Access Denied: Project my-project: User does not have bigquery.jobs.create "
    "permission in project my-project." + _ROLES
)
NO_SESSIONS = (
    "sync users: the Storage Read API refuses: request failed: the user does not have "
    "'bigquery.readsessions.create' permission for 'projects/my-project'" + _ROLES
)
NO_READS = (
    "sync users: the Storage Read API refuses: there was an error operating on 's': the user does "
    "not have 'bigquery.readsessions.getData' permission for 's'" + _ROLES
)


@pytest.mark.parametrize(
    ("step", "text", "permission", "role"),
    [
        (JOBS_CREATE, NO_JOBS, JOBS_CREATE, "roles/bigquery.jobUser"),
        (SESSIONS_CREATE, NO_SESSIONS, SESSIONS_CREATE, "roles/bigquery.readSessionUser"),
        (
            SESSIONS_CREATE,
            NO_READS,
            "bigquery.readsessions.getData",
            "roles/bigquery.readSessionUser",
        ),
        (SESSIONS_CREATE, NO_JOBS, JOBS_CREATE, "roles/bigquery.jobUser"),
        (SESSIONS_CREATE, "refused", SESSIONS_CREATE, "roles/bigquery.readSessionUser"),
    ],
)
def test_a_permission_on_the_project(
    pem: str, step: str, text: str, permission: str, role: str
) -> None:
    found = known(pem).failed(step, CredentialsError(text))
    assert found.check == permission
    assert found.exit_code == 77
    assert f"{EMAIL} lacks {permission} on project my-project" in found.remedy
    assert grant(found) == [
        "gcloud",
        "projects",
        "add-iam-policy-binding",
        "my-project",
        f"--member=serviceAccount:{EMAIL}",
        f"--role={role}",
    ]
    assert "It takes" not in found.what
    assert not found.what.startswith("sync users")


@pytest.mark.parametrize(
    ("resource", "owner", "dataset"),
    [
        ("Table data-project:app.users", "data-project", "app"),
        ("View data-project:app.v", "data-project", "app"),
        ("Dataset data-project:app", "data-project", "app"),
        ("Table example.com:data:app.users", "example.com:data", "app"),
    ],
)
def test_a_permission_on_a_dataset(pem: str, resource: str, owner: str, dataset: str) -> None:
    text = f"sync users: Access Denied: {resource}: User does not have permission to query it."
    found = known(pem, "EU").failed(TABLES_GET_DATA, CredentialsError(text), "sync users")
    assert found.about == "sync users"
    assert found.check == TABLES_GET_DATA
    assert f"on dataset {owner}.{dataset}" in found.remedy
    assert grant(found) == [
        "bq",
        "query",
        f"--project_id={owner}",
        "--location=EU",
        "--use_legacy_sql=false",
        (
            f"GRANT `roles/bigquery.dataViewer` ON SCHEMA `{owner}.{dataset}` "
            f'TO "serviceAccount:{EMAIL}"'
        ),
    ]


def test_a_dataset_that_is_not_named(pem: str) -> None:
    found = known(pem).failed(TABLES_GET_DATA, CredentialsError("Access Denied."))
    assert "the datasets of the query" in found.remedy
    assert "`PROJECT.DATASET`" in found.command


@pytest.mark.parametrize(
    ("step", "service"), [(JOBS_CREATE, "bigquery"), (SESSIONS_CREATE, "bigquerystorage")]
)
def test_an_api_that_is_not_enabled(pem: str, step: str, service: str) -> None:
    text = "BigQuery API has not been used in project 12 before or it is disabled."
    found = known(pem).failed(step, CredentialsError(text))
    assert found.check == step
    assert grant(found) == [
        "gcloud",
        "services",
        "enable",
        f"{service}.googleapis.com",
        "--project=my-project",
    ]


@pytest.mark.parametrize(
    ("error", "exit_code"), [(ConfigError("no such table"), 78), (SourceError("down"), 75)]
)
def test_what_is_no_refusal_has_no_grant(pem: str, error: PipelineError, exit_code: int) -> None:
    found = known(pem).failed(JOBS_CREATE, error)
    assert (found.exit_code, found.command, found.remedy) == (exit_code, "", "")
