"""What BigQuery needs of us before the first row: who we are, a token, the time, the permissions.

Blocking; each check gives one Finding and never raises for what it looks for. Keys and tokens are
never part of one. What a refusal lacks is taken from BigQuery's own words where they name it, and
else from the step that was refused. Source of permissions and roles: cloud.google.com/bigquery/
docs/access-control. It does not know where the refused request came from.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial

from google.auth import compute_engine, external_account, impersonated_credentials
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request
from google.oauth2 import credentials as user_credentials
from google.oauth2 import service_account

from pipeline.errors import CredentialsError, PipelineError
from pipeline.findings import Finding, Outcome
from pipeline.source.client import Connection
from pipeline.source.faults import translated

JOBS_CREATE = "bigquery.jobs.create"
SESSIONS_CREATE = "bigquery.readsessions.create"
TABLES_GET_DATA = "bigquery.tables.getData"
_VIEWER = "roles/bigquery.dataViewer"
# Permission -> the least predefined role that has it. All but the last are given on projects.
_ROLES = {
    JOBS_CREATE: "roles/bigquery.jobUser",
    SESSIONS_CREATE: "roles/bigquery.readSessionUser",
    "bigquery.readsessions.getData": "roles/bigquery.readSessionUser",
    TABLES_GET_DATA: _VIEWER,
}
_PERMISSION = re.compile(r"\bbigquery\.[a-z]+\.[A-Za-z]+")
# As in: Access Denied: Table p:d.t: User does not have permission to query table p:d.t
_REFUSED_DATA = re.compile(r"(?:Table|View|Dataset) (\S+):(\w+)(?:\.\S+)?: ")
_DISABLED = re.compile(r"API has not been used in project|it is disabled")
# The general sentence on roles at the end of our own messages: a Finding says which one it is.
_GENERAL = re.compile(r" It takes roles/.*")

_GOOGLE = "https://bigquery.googleapis.com"
_PATIENCE = 30.0  # seconds for one request
# Requests for tokens are signed with this machine's time, which has to be "in a reasonable
# timeframe": how much Google allows is not documented. A clock in order is within a second.
_SKEW = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks. kind: for people. member: as IAM writes it; with a stand-in when not known."""

    kind: str
    email: str = ""
    member: str = "serviceAccount:EMAIL"

    def __str__(self) -> str:
        return f"{self.kind} {self.email}".rstrip()


class Preflight:
    """The checks of one source. about: as the configuration names it, "source warehouse"."""

    def __init__(
        self, connection: Connection, *, about: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._connection, self._about, self._clock = connection, about, clock
        self._credentials: Credentials | None = None
        self.principal = Principal(kind="unknown")

    def credentials(self) -> Finding:
        """Whether there are any, their kind and whose they are."""
        try:
            self._credentials = self._connection.principal()
        except CredentialsError as error:
            return self.failed("credentials", error)
        self.principal = principal(self._credentials)
        return self._ok("credentials", str(self.principal))

    def token(self) -> Finding:
        """Whether Google gives a token for them."""
        credentials = self._credentials
        if credentials is None or isinstance(credentials, AnonymousCredentials):
            return Finding(
                about=self._about,
                check="token",
                outcome=Outcome.SKIPPED,
                what="nobody to ask: the endpoint is on this machine",
            )
        try:
            with translated(self._about):
                _refresh(credentials, self._about)
        except PipelineError as error:
            return self.failed("token", error)
        self.principal = principal(credentials)  # some learn their own name with the token
        return self._ok("token", f"Google gave one to {self.principal}")

    def clock(self) -> Finding:
        """How far this machine's clock is from the server's."""
        try:
            with translated(self._about):
                ahead = self._ahead()
        except PipelineError as error:
            return self.failed("clock", error)
        if ahead is None:
            what = "the server does not tell its time"
            return Finding(about=self._about, check="clock", outcome=Outcome.SKIPPED, what=what)
        if abs(ahead) < 1:
            return self._ok("clock", "the same as the server's")
        what = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
        if abs(ahead) < _SKEW:
            return self._ok("clock", what)
        return Finding(
            about=self._about,
            check="clock",
            outcome=Outcome.WARNING,
            what=what,
            remedy="Synchronise this machine's clock (NTP): Google refuses to give tokens to one "
            "that is far off.",
        )

    def allowed(self, check: str, what: str, about: str = "") -> Finding:
        """What was asked for was granted. check: the permission."""
        return self._ok(check, what, about)

    def failed(self, check: str, error: PipelineError, about: str = "") -> Finding:
        """A refusal or fault, with the role that is missing and the command that grants it."""
        what = _GENERAL.sub("", str(error))
        what = re.sub(rf"^(?:sync \S+|{re.escape(self._about)}): ", "", what)
        remedy = command = ""
        if isinstance(error, CredentialsError) and check in _ROLES:
            check, remedy, command = self._grant(check, what)
        return Finding(
            about=about or self._about,
            check=check,
            outcome=Outcome.FAILED,
            what=what,
            remedy=remedy,
            command=command,
            exit_code=error.exit_code,
        )

    def _ok(self, check: str, what: str, about: str = "") -> Finding:
        return Finding(about=about or self._about, check=check, outcome=Outcome.OK, what=what)

    def _ahead(self) -> float | None:
        url = self._connection.endpoint or _GOOGLE
        before = self._clock()
        # Any answer has a Date, also a 404.
        answer = Request()(url=url, method="HEAD", timeout=_PATIENCE)
        date = answer.headers.get("Date")
        if not date:
            return None
        middle = (before + self._clock()) / 2
        # A Date has whole seconds: half a second later on average.
        return float(middle - parsedate_to_datetime(date).timestamp() - 0.5)

    def _grant(self, step: str, message: str) -> tuple[str, str, str]:
        """The missing permission, what to do about it in words, and as a command."""
        project = self._connection.project
        if _DISABLED.search(message):
            service = "bigquerystorage" if step == SESSIONS_CREATE else "bigquery"
            command = f"gcloud services enable {service}.googleapis.com --project={project}"
            return step, f"Enable the API in project {project}, and wait a minute.", command
        named = _PERMISSION.search(message)
        permission = named[0] if named and named[0] in _ROLES else step
        role = _ROLES[permission]
        if role == _VIEWER:
            return permission, *self._grant_data(message)
        remedy = (
            f"{self.principal} lacks {permission} on project {project}: grant {role} on the "
            "project."
        )
        command = (
            f"gcloud projects add-iam-policy-binding {shlex.quote(project)} "
            f"--member={shlex.quote(self.principal.member)} --role={role}"
        )
        return permission, remedy, command

    def _grant_data(self, message: str) -> tuple[str, str]:
        found = _REFUSED_DATA.search(message)
        owner, dataset = (found[1], found[2]) if found else ("PROJECT", "DATASET")
        where = f"dataset {owner}.{dataset}" if found else "the datasets of the query"
        remedy = (
            f"{self.principal} lacks {TABLES_GET_DATA} on {where}: grant {_VIEWER} there, "
            "or check the name."
        )
        # gcloud grants on projects only; on datasets it is bq, which comes with it.
        location = self._connection.location
        grant = f'GRANT `{_VIEWER}` ON SCHEMA `{owner}.{dataset}` TO "{self.principal.member}"'
        command = (
            f"bq query --project_id={shlex.quote(owner)} "
            + (f"--location={shlex.quote(location)} " if location else "")
            + f"--use_legacy_sql=false {shlex.quote(grant)}"
        )
        return remedy, command


def principal(credentials: Credentials) -> Principal:
    """Whose credentials they are, as far as that is known without a request."""
    match credentials:
        case AnonymousCredentials():
            return Principal(kind="anonymous, on this machine")
        case impersonated_credentials.Credentials():
            return _service("impersonated service account", credentials.service_account_email)
        case service_account.Credentials():
            return _service("service account", credentials.service_account_email)
        case external_account.Credentials():
            email = credentials.service_account_email
            return _service("workload identity federation", email or "")
        case compute_engine.Credentials():
            # Until the first token the metadata server has not been asked: "default".
            email = credentials.service_account_email
            return _service("attached service account", "" if email == "default" else email)
        case user_credentials.Credentials():
            email = str(credentials.account or "")
            member = f"user:{email or 'EMAIL'}"
            return Principal(kind="user", email=email, member=member)
        case _:
            return Principal(kind=type(credentials).__module__.rsplit(".", 1)[-1])


def _service(kind: str, email: str) -> Principal:
    return Principal(kind=kind, email=email, member=f"serviceAccount:{email or 'EMAIL'}")


def _refresh(credentials: Credentials, about: str) -> None:
    request = partial(Request(), timeout=_PATIENCE)
    try:
        credentials.refresh(request)
    except RefreshError as error:
        if getattr(error, "retryable", False):
            raise
        if isinstance(credentials, impersonated_credentials.Credentials):
            raise CredentialsError(
                f"{about}: nobody may act as {credentials.service_account_email} with these "
                "credentials. Grant roles/iam.serviceAccountTokenCreator on that account to who "
                "impersonates it, and enable iamcredentials.googleapis.com."
            ) from None
        raise CredentialsError(
            f"{about}: Google gives no token. The key was deleted or disabled, the account is "
            "gone, the sign-in has expired (`gcloud auth application-default login`), or this "
            "machine's clock is wrong."
        ) from None
