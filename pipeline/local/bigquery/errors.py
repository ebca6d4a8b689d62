"""What the local BigQuery refuses, in BigQuery's words and shape.

Everything that a client can cause ends as a LocalError: DuckDB's and sqlglot's exceptions are
translated here, once, and keep none of their classes. The reasons and their HTTP codes are those
of https://cloud.google.com/bigquery/docs/error-messages.
"""

from __future__ import annotations

import re

import duckdb
from sqlglot.errors import OptimizeError, ParseError, SqlglotError, TokenError

HTTP_OF_REASON = {
    "accessDenied": 403,
    "bytesBilledLimitExceeded": 400,
    "duplicate": 409,
    "internalError": 500,
    "invalid": 400,
    "invalidQuery": 400,
    "notFound": 404,
    "notImplemented": 501,
    "responseTooLarge": 403,
    "stopped": 499,
}

STATUS_OF_HTTP = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
}


class LocalError(Exception):
    """A refusal as BigQuery would answer it.

    reason: BigQuery's error reason. message: its text. http: the status of a REST answer.
    location: what is at fault, "query" for SQL.
    """

    def __init__(self, reason: str, message: str, http: int = 0, location: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.http = http or HTTP_OF_REASON.get(reason, 400)
        self.location = location or ("query" if reason == "invalidQuery" else "")

    def proto(self) -> dict[str, str]:
        """The ErrorProto of a job's status."""
        located = {"location": self.location} if self.location else {}
        return {"reason": self.reason, **located, "message": self.message}

    def body(self) -> dict[str, object]:
        """The JSON body of a REST answer."""
        entry: dict[str, str] = {
            "message": self.message,
            "domain": "global",
            "reason": self.reason,
        }
        if self.location:
            entry |= {"location": self.location, "locationType": "parameter"}
        return {
            "error": {
                "code": self.http,
                "message": self.message,
                "errors": [entry],
                "status": STATUS_OF_HTTP.get(self.http, "UNKNOWN"),
            }
        }


def invalid_query(message: str, at: tuple[int, int] | None = None) -> LocalError:
    """A fault of the SQL. at: line and column, from 1."""
    return LocalError("invalidQuery", f"{message} at [{at[0]}:{at[1]}]" if at else message)


def not_found(project: str, dataset: str, table: str = "") -> LocalError:
    """A dataset or table that does not exist."""
    what = f"Table {project}:{dataset}.{table}" if table else f"Dataset {project}:{dataset}"
    return LocalError("notFound", f"Not found: {what} was not found in location US")


def already_exists(what: str) -> LocalError:
    """Something that is there already. what: as in "Job p:US.id"."""
    return LocalError("duplicate", f"Already Exists: {what}")


def access_denied(project: str, dataset: str, table: str) -> LocalError:
    """A table that may not be read; BigQuery does not say whether it exists."""
    name = f"{project}:{dataset}.{table}"
    return LocalError(
        "accessDenied",
        f"Access Denied: Table {name}: User does not have permission to query table {name}, "
        "or perhaps it does not exist.",
    )


def unsupported(what: str) -> LocalError:
    """Something that BigQuery can do and the local one can't."""
    return LocalError("notImplemented", f"The local BigQuery does not support {what}.")


def syntax_error(sql: str, error: Exception) -> LocalError:
    """A statement that sqlglot could not read, in the manner of BigQuery's parser."""
    if isinstance(error, ParseError) and error.errors:
        first = error.errors[0]
        token = str(first.get("highlight") or "").strip()
        line, column = int(first.get("line") or 1), int(first.get("col") or 1)
        # sqlglot counts to the last character of the token, BigQuery to its first.
        start = max(1, column - len(token) + 1)
        what = (
            f'Unexpected "{token}"'
            if token and len(token) < 100  # a token, not half the statement
            else str(first.get("description") or "Unexpected end of script").rstrip(".")
        )
        return invalid_query(f"Syntax error: {what}", (line, start))
    if isinstance(error, TokenError):
        return invalid_query("Syntax error: Unclosed string or comment", (len(sql.splitlines()), 1))
    return invalid_query(f"Syntax error: {_one_line(str(error))}")


def from_sqlglot(error: SqlglotError) -> LocalError:
    """Any other refusal of sqlglot's."""
    text = _one_line(str(error))
    if isinstance(error, OptimizeError):
        return invalid_query(text)
    return LocalError("notImplemented", f"The local BigQuery can't run this statement: {text}")


_UNKNOWN_FUNCTION = re.compile(
    r"(?:Scalar|Table|Aggregate)? ?Function with name \"?(\w+)", re.IGNORECASE
)

# DuckDB's forms of BigQuery's types (types.py), and its own names of others.
_INTERNAL_TYPES = (
    (r'STRUCT\("\$bignumeric" [^)]*\), "\$fraction" [^)]*\)\)', "BIGNUMERIC"),
    (r'STRUCT\("\$geography" VARCHAR\)', "GEOGRAPHY"),
    (r'STRUCT\("\$start" (\w+)[^)]*\)', r"RANGE<\1>"),
    (r"\b(?:INTEGER_LITERAL|INTEGER|BIGINT|INT32)\b", "INT64"),
    (r"\bDOUBLE\b", "FLOAT64"),
    (r"\b(?:VARCHAR|STRING_LITERAL)\b", "STRING"),
)
_REQUIRED = re.compile(r"NOT NULL constraint failed: (?:\w+\.)*(\w+)")


def from_duckdb(error: duckdb.Error) -> LocalError:
    """DuckDB's refusal, without its class and without the SQL that the user did not write."""
    text = str(error).split("\n\nLINE ")[0].split("\nLINE ")[0].strip()
    required = _REQUIRED.search(text)
    if required:
        return invalid_query(f"Required field {required[1]} cannot be null")
    missing = _UNKNOWN_FUNCTION.search(text)
    if missing and "does not exist" in text:
        return invalid_query(f"Function not found: {missing[1]}")
    if isinstance(error, duckdb.InterruptException):
        return LocalError("stopped", "Job execution was cancelled: User requested cancellation")
    if isinstance(error, duckdb.OutOfMemoryException):
        return LocalError("responseTooLarge", f"Resources exceeded: {_one_line(text)}")
    text = re.sub(r"^[A-Z]\w+(?: \w+)? Error: ", "", _one_line(text))
    for pattern, name in _INTERNAL_TYPES:
        text = re.sub(pattern, name, text)
    return invalid_query(text)


def _one_line(text: str) -> str:
    """Without terminal colours and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())
