"""The sample as SQL statements and a configuration, to be run by whoever has a client.

Pure: reads only the files beside it. The statements are BigQuery's own SQL, one a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from pipeline.errors import ConfigError

MOST_ROWS = 100_000_000


def counts(rows: int) -> Mapping[str, int]:
    """Rows of each table, for `rows` users: events, companies, pages, screens, aliases.

    Raises ConfigError for less than 1 or more than MOST_ROWS.
    """
    if not 1 <= rows <= MOST_ROWS:
        raise ConfigError(f"sample: {rows:,} users. Ask for 1 to {MOST_ROWS:,}.")
    return {
        "users": rows,
        "events": max(1, rows * 3 // 2),
        "companies": max(1, rows // 20),
        "pages": max(1, rows // 10),
        "screens": max(1, rows // 10),
        "aliases": max(1, rows // 100),
    }


def statements(rows: int) -> list[str]:
    """What creates and fills dataset `app`, in order; tables that are there are replaced."""
    script = _read("setup.sql")
    for name, count in counts(rows).items():
        script = script.replace(f"{{{{{name}}}}}", str(count))
    return _split(script)


def changes() -> list[str]:
    """What changes some rows, as of the time it runs, in order."""
    return _split(_read("change.sql"))


def configuration(*, rest: str, storage: str, customerio: str) -> str:
    """The text of retl.yml with the addresses of the local services filled in.

    rest: URL of the local BigQuery. storage: `host:port` of its Storage Read API.
    customerio: URL of the local Customer.io, without /v1.
    """
    values = {
        "LOCAL_BIGQUERY_REST": rest,
        "LOCAL_BIGQUERY_STORAGE": storage if "://" in storage else f"http://{storage}",
        "LOCAL_CUSTOMERIO": f"{customerio.rstrip('/')}/v1",
    }
    body = _read("retl.yml").partition("\n\n")[2]  # Without the comment on the variables.
    for name, value in values.items():
        body = body.replace(f"${{{name}}}", value)
    return f"# The demo's configuration: the six calls of Customer.io, one sync each.\n\n{body}"


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _split(script: str) -> list[str]:
    """Statements end in a semicolon at the end of a line; comments stand on lines of their own."""
    code = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
    return [part.strip() for part in code.split(";\n") if part.strip(" \n;")]
