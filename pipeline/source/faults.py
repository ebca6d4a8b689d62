"""Google's exceptions, REST and gRPC, to ours: whose fault it is, and what to do.

What BigQuery says of a query before it ran is passed on: it speaks of the SQL. What it says of a
query that ran may quote values of rows, so only its kind is told, and where to read the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError, TransportError
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from requests.exceptions import RequestException

from pipeline.errors import ConfigError, CredentialsError, PipelineError, SourceError
from pipeline.source.template import hint

_TOO_EXPENSIVE = "bytesBilledLimitExceeded"
_ROLES = (
    "It takes roles/bigquery.jobUser and roles/bigquery.readSessionUser on the project, and "
    "roles/bigquery.dataViewer on the datasets."
)
# BigQuery's reasons that speak of the query or its tables, not of the moment.
_QUERY_REASONS = frozenset(
    {"invalidQuery", "invalid", "notFound", "duplicate", "resourcesExceeded", _TOO_EXPENSIVE}
)


# In BigQuery's words for an offset beyond the end of a stream.
_BEYOND = "has not been allocated yet"
_STATUS_DETAILS = "grpc-status-details-bin"


class MissingTable(SourceError):
    """The Storage Read API does not find what it should read."""


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise ours for Google's. where: the sync and source, for the message."""
    try:
        yield
    except PipelineError:
        raise
    except (api.GoogleAPICallError, api.RetryError) as error:
        raise _rest(where, error) from None
    except grpc.aio.AioRpcError as error:
        raise from_status(where, error.code(), error.details() or "") from None
    except GoogleAuthError as error:
        if _no_answer(error):
            text = f"{where}: Google's token server can't be reached. Run again."
            raise SourceError(text) from error
        raise CredentialsError(
            f"{where}: Google refuses the credentials. Check the service account key, and that "
            "the account still exists; with `impersonate`, that it may act as that account "
            "(roles/iam.serviceAccountTokenCreator)."
        ) from None
    except (RequestException, OSError) as error:
        raise SourceError(
            f"{where}: BigQuery can't be reached ({type(error).__name__}). Check `endpoint` and "
            "the network, and run again."
        ) from None


def _no_answer(error: GoogleAuthError) -> bool:
    """Whether nobody has judged the credentials: the token server was away, or overloaded.

    On Kubernetes that is a pod's metadata server, which is not there in its first seconds. A
    refusal of its own is a TransportError too, with the answer beside the text.
    """
    if isinstance(error, TransportError) or error.retryable:
        return True
    cause = error.__cause__
    return isinstance(cause, TransportError) and len(cause.args) == 1


def _rest(where: str, error: api.GoogleAPICallError | api.RetryError) -> PipelineError:
    if isinstance(error, api.RetryError):
        cause = error.cause
        if isinstance(cause, api.GoogleAPICallError):
            return _rest(where, cause)
        return SourceError(
            f"{where}: BigQuery does not answer. Check `endpoint`, `storage_endpoint` and the "
            "network, and run again."
        )
    if isinstance(error.response, grpc.RpcError):
        return from_status(where, error.response.code(), error.response.details() or "")
    # BigQuery's own words: the exception's message has the request's URL and the job's id in it.
    details = error.errors[0] if error.errors and isinstance(error.errors[0], dict) else {}
    reason, message = details.get("reason", ""), details.get("message") or type(error).__name__
    if isinstance(error, api.Unauthorized):
        return CredentialsError(f"{where}: {message} Check the credentials of the source.")
    if isinstance(error, api.Forbidden) and reason not in {"quotaExceeded", "rateLimitExceeded"}:
        return refused(where, reason, message)
    if isinstance(error, api.BadRequest | api.NotFound):
        return refused(where, reason or "invalid", message)
    return SourceError(f"{where}: BigQuery failed: {message} Run again.")


def refused(where: str, reason: str, message: str) -> PipelineError:
    """The error for one of BigQuery's reasons, said before the query ran."""
    if reason == "accessDenied":
        return CredentialsError(f"{where}: {message} {_ROLES}")
    if reason == _TOO_EXPENSIVE:
        return ConfigError(
            f"{where}: {message} Raise `maximum_bytes_billed` of the source, or narrow the query."
        )
    remedy = hint(message)
    return ConfigError(f"{where}: {message}" + (f"\n{remedy}" if remedy else ""))


def failed_job(where: str, job_id: str, reason: str) -> PipelineError:
    """The error for a query that failed while it ran."""
    text = (
        f"{where}: the query failed while it ran ({reason}). BigQuery's own message may quote "
        f"rows and is not repeated here: `bq show -j {job_id}` tells it."
    )
    if reason == "accessDenied":
        return CredentialsError(text)
    return ConfigError(text) if reason in _QUERY_REASONS else SourceError(text)


def from_status(where: str, code: grpc.StatusCode, details: str) -> PipelineError:
    """The error for a gRPC status of the Storage Read API."""
    if code in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}:
        return CredentialsError(f"{where}: the Storage Read API refuses: {details} {_ROLES}")
    if code is grpc.StatusCode.NOT_FOUND:
        return MissingTable(f"{where}: the Storage Read API does not find the table: {details}")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return ConfigError(f"{where}: the Storage Read API refuses the read: {details}")
    if code is grpc.StatusCode.FAILED_PRECONDITION and _BEYOND in details:
        return SourceError(
            f"{where}: a read stream ends before the row up to which it was settled: {details}. "
            "The session is not what it was. Once it has expired (6 hours after the run began), "
            "the next run reads the same result anew; `retl state set`, with the time that "
            "`retl state show` gives, starts over at once."
        )
    if code is grpc.StatusCode.DATA_LOSS:
        return SourceError(
            f"{where}: BigQuery can't give some rows of the result any more: {details}. What came "
            "is settled. Run again; if it stays, `retl state set`, with the time that "
            "`retl state show` gives, lets the query run anew."
        )
    return SourceError(
        f"{where}: the Storage Read API failed ({code.name}): {details.rstrip('.')}. "
        "If it can't be reached, check `storage_endpoint` and the network (gRPC, port 443); then "
        "run again."
    )


def retry_after(error: grpc.aio.AioRpcError) -> float | None:
    """Seconds after which the service wants to be asked again: the RetryInfo of a status.

    None when it says nothing of the kind.
    """
    for key, value in error.trailing_metadata() or ():
        if key != _STATUS_DETAILS:
            continue
        info = error_details_pb2.RetryInfo()
        try:
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    delay = info.retry_delay
                    return max(0.0, float(delay.seconds + delay.nanos / 1e9))
        except DecodeError:
            return None
    return None
