from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.config import (
    EXAMPLE,
    BigQuerySource,
    ColumnConfig,
    Config,
    CustomerioDestination,
    FileDestination,
    FileSource,
    load_config,
)
from pipeline.config.faults import explain
from pipeline.errors import ConfigError, Fault
from pipeline.model import Call

VALID: dict[str, Any] = {
    "version": 1,
    "sources": {
        "warehouse": {"type": "bigquery", "project": "p"},
        "disk": {"type": "file", "path": "rows.parquet"},
    },
    "destinations": {
        "customerio": {"type": "customerio", "api_key": "k"},
        "out": {"type": "file", "path": "out.ndjson"},
    },
    "syncs": {
        "users": {
            "source": "warehouse",
            "call": "identify",
            "destinations": ["customerio"],
            "query": "SELECT 1",
        },
    },
}


def changed(**changes: object) -> dict[str, Any]:
    """VALID with `a__b=value` set at a.b, or removed where the value is `...`."""
    data = copy.deepcopy(VALID)
    for path, value in changes.items():
        *above, last = path.split("__")
        node = data
        for part in above:
            node = node.setdefault(part, {})
        if value is ...:
            del node[last]
        else:
            node[last] = value
    return data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def load(folder: Path, content: object, env: Mapping[str, str] | None = None) -> Config:
    file = folder / "retl.yml"
    text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
    file.write_text(text)
    return load_config(file, env or {})


def faults(
    folder: Path, content: object, env: Mapping[str, str] | None = None
) -> tuple[Fault, ...]:
    with pytest.raises(ConfigError) as caught:
        load(folder, content, env)
    found = caught.value.faults
    assert all(fault.what.endswith(".") and fault.remedy.endswith((".", "?")) for fault in found)
    return found


def place(fault: Fault) -> str:
    return fault.where.rpartition(", line ")[0] or fault.where


# ------------------------------------------------------------------------------- what is right


def test_defaults(folder: Path) -> None:
    config = load(folder, VALID)
    warehouse, customerio = config.sources["warehouse"], config.destinations["customerio"]
    assert isinstance(warehouse, BigQuerySource)
    assert isinstance(customerio, CustomerioDestination)
    assert isinstance(config.sources["disk"], FileSource)
    assert isinstance(config.destinations["out"], FileDestination)
    assert warehouse.credentials is None
    assert warehouse.maximum_bytes_billed == 100 * 10**9
    assert customerio.region == "us"
    users = config.syncs["users"]
    assert users.call is Call.IDENTIFY
    assert (users.lookback, users.max_rejected, users.nulls, users.times) == (
        0,
        None,
        "send",
        "unix",
    )
    assert (config.read.streams, config.read.threads) == (4, None)
    assert (config.send.concurrency, config.send.buffer_bytes) == ("adaptive", 64_000_000)
    assert (config.send.retry_deadline, config.send.timeout) == (900, 30)
    assert config.send.rate_limit.requests_per_second is None
    assert (config.drain, config.metrics.port, config.log.level) == (25, None, "info")


def test_everything_at_once(folder: Path) -> None:
    config = load(
        folder,
        changed(
            sources__warehouse={
                "type": "bigquery",
                "project": "p",
                "location": "EU",
                "credentials": ' {"type": "service_account", "client_email": "a@b", '
                '"private_key": "k", "token_uri": "https://t"}\n',
                "maximum_bytes_billed": "1GiB",
                "labels": {"team": "growth", "cost-centre": "", "größe": "x_1"},
                "endpoint": "http://127.0.0.1:9050/",
                "storage_endpoint": "http://[::1]:9060",
            },
            destinations__customerio__region="eu",
            destinations__customerio__api_key="  key \n",
            destinations__customerio__endpoint="https://proxy.example/cdp/",
            syncs__users__columns={"ip_address": "context.ip", "notes": None},
            syncs__users__json_columns=["meta"],
            syncs__users__lookback="5m",
            syncs__users__max_rejected="0.5 %",
            syncs__users__tags=["people"],
            send={"rate_limit": {"requests_per_second": 0.5, "burst": 3}, "compression": "gzip"},
            metrics={"port": 0},
        ),
    )
    source, destination = config.sources["warehouse"], config.destinations["customerio"]
    assert isinstance(source, BigQuerySource)
    assert isinstance(destination, CustomerioDestination)
    assert source.credentials is not None
    assert json.loads(source.credentials.get_secret_value())["type"] == "service_account"
    assert source.maximum_bytes_billed == 2**30
    assert source.endpoint == "http://127.0.0.1:9050"
    assert source.storage_endpoint == "http://[::1]:9060"
    assert destination.api_key.get_secret_value() == "key"
    assert destination.endpoint == "https://proxy.example/cdp"
    users = config.syncs["users"]
    assert users.columns == {"ip_address": ColumnConfig(to="context.ip"), "notes": None}
    assert (users.lookback, users.max_rejected) == (300, "0.5%")
    assert config.metrics.port == 0


def test_nothing_can_be_changed(folder: Path) -> None:
    config = load(folder, VALID)
    with pytest.raises(ValidationError):
        config.send.concurrency = 3


@pytest.mark.parametrize("section", ["read", "send", "metrics", "log", "drain", "state"])
def test_an_empty_section_has_its_defaults(folder: Path, section: str) -> None:
    config = load(folder, changed(**{section: None}))
    assert config.model_dump() == load(folder, VALID).model_dump()


def test_the_example_is_valid_once_its_variables_are_set(folder: Path) -> None:
    config = load(folder, EXAMPLE, {"BIGQUERY_PROJECT": "p", "CUSTOMERIO_API_KEY": "k"})
    assert list(config.syncs) == ["users", "orders"]
    assert list(config.sources) == ["warehouse"]
    assert list(config.destinations) == ["customerio"]
    found = faults(folder, EXAMPLE)
    assert [place(fault) for fault in found] == [
        "sources.warehouse.project",
        "destinations.customerio.api_key",
    ]


@pytest.mark.parametrize(
    ("limit", "rejected", "read", "tolerated"),
    [
        (None, 10, 10, True),
        (0, 0, 10, True),
        (0, 1, 10, False),
        (5, 5, 10, True),
        (5, 6, 10, False),
        ("10%", 1, 10, True),
        ("10%", 2, 10, False),
        ("0%", 1, 10**9, False),
        ("0%", 0, 0, True),
        ("100%", 10, 10, True),
        ("0.5%", 5, 1000, True),
        ("0.5%", 6, 1000, False),
    ],
)
def test_max_rejected(
    folder: Path, *, limit: object, rejected: int, read: int, tolerated: bool
) -> None:
    users = load(folder, changed(syncs__users__max_rejected=limit)).syncs["users"]
    assert users.tolerates(rejected, read) is tolerated


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ("postgresql://u:hunter2@h:1/d?sslmode=require", "postgresql://h:1/d"),
        ("postgres:///d?host=/run", "postgres:///d"),
        ("postgresql://a,b:2/d", "postgresql://a,b:2/d"),
    ],
)
def test_a_state_in_postgres_is_no_file_and_never_shown(
    folder: Path, state: str, place: str
) -> None:
    config = load(folder, changed(state=state))
    assert (config.state_url, config.state_place, config.state_path) == (state, place, None)
    assert "hunter2" not in f"{config!r} {config}"


def test_relative_paths_belong_to_the_files_folder(folder: Path) -> None:
    config = load(folder, VALID)
    assert config.directory == folder
    assert config.resolve("a/b") == str(folder / "a/b")
    assert config.resolve("/a/b") == "/a/b"
    assert config.resolve("gs://bucket/a") == "gs://bucket/a"
    assert config.state_url == f"sqlite:///{folder}/.retl/state.db"
    absolute = load(folder, changed(state="sqlite:////var/lib/retl/state.db"))
    assert absolute.state_url == absolute.state_place == "sqlite:////var/lib/retl/state.db"
    assert absolute.state_path == Path("/var/lib/retl/state.db")
    assert "directory" not in config.model_dump()


def test_a_config_made_in_code_is_checked_too() -> None:
    assert Config.model_validate(VALID).directory == Path.cwd()
    with pytest.raises(ValidationError, match="There is no source called"):
        Config.model_validate(changed(syncs__users__source="nowhere"))


# ------------------------------------------------------------------------------- where it is


def test_the_file_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "retl.yml").write_text(yaml.safe_dump(changed(drain=1)))
    (folder / "other.yml").write_text(yaml.safe_dump(changed(drain=2)))
    (folder / "third.yml").write_text(yaml.safe_dump(changed(drain=3)))
    monkeypatch.chdir(folder)
    other = {"RETL_CONFIG": "other.yml"}
    assert load_config(env={}).drain == 1
    assert load_config(env=other).drain == 2
    assert load_config(Path("third.yml"), other).drain == 3
    assert load_config(env=other).directory == folder
    monkeypatch.setenv("RETL_CONFIG", "other.yml")
    assert load_config().drain == 2
    os.environ.pop("RETL_CONFIG")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda _: None, "no such file"),
        (lambda file: file.mkdir(), "is a directory"),
        (lambda file: file.write_bytes(b"a: \xff"), "not UTF-8"),
        (lambda file: file.write_bytes("version: 1".encode("utf-16")), "not UTF-8"),
        (lambda file: file.write_bytes(b"#" * (4 * 2**20 + 1)), "larger than"),
        (lambda file: file.symlink_to("/dev/zero"), "larger than"),
    ],
)
def test_a_file_that_cant_be_read(folder: Path, make: Any, what: str) -> None:
    make(folder / "retl.yml")
    with pytest.raises(ConfigError) as caught:
        load_config(folder / "retl.yml", {})
    (fault,) = caught.value.faults
    assert fault.where == str(folder / "retl.yml")
    assert what in fault.what
    assert "`retl init`" in fault.remedy
    assert caught.value.exit_code == 78


# ------------------------------------------------------------------------------- what is wrong

URL = "https://user:hunter2@host/"
# (changes, [(place, part of what or remedy)])
WRONG: list[tuple[dict[str, object], list[tuple[str, str]]]] = [
    # the whole
    ({"version": ...}, [("version", "missing")]),
    ({"version": 2}, [("version", "`1`")]),
    ({"version": "1"}, [("version", "`1`")]),
    ({"sources": ...}, [("sources", "missing"), ("syncs.users.source", "no source")]),
    ({"syncs": {}}, [("syncs", "at least one")]),
    ({"syncs": None}, [("syncs", "empty")]),
    ({"syncs": [1]}, [("syncs", "mapping")]),
    ({"syncs": "x"}, [("syncs", "mapping")]),
    ({"syncs__users": None}, [("syncs.users", "empty")]),
    ({"syncs__users": "x"}, [("syncs.users", "mapping")]),
    ({"nonsense": 1}, [("nonsense", "not known")]),
    ({"sync": 1}, [("sync", "Did you mean `syncs`?")]),
    ({"directory": "/"}, [("directory", "not known")]),
    ({"_directory": "/"}, [("_directory", "not known")]),
    ({"concurrency": 1}, [("concurrency", "belongs under `send`")]),
    ({"send__burst": 1}, [("send.burst", "belongs under `send.rate_limit`")]),
    ({"state": "mysql://u:hunter2@h/d"}, [("state", "Only SQLite and Postgres")]),
    ({"state": "postgresql://u:hunter2@h"}, [("state", "names no database")]),
    ({"state": "postgresql://u:hunter2@h/?x=1"}, [("state", "names no database")]),
    ({"state": "postgresql://u:hunter2/@h/d"}, [("state", "names no database")]),
    ({"state": "postgresql://u:hunter2@2@h/d"}, [("state", "an @ in it")]),
    ({"state": "postgresql://u:hun/ter2@h"}, [("state", "an @ in it")]),
    ({"state": "postgresql://h/d?user=u@hunter2"}, [("state", "an @ in it")]),
    ({"state": "sqlite://"}, [("state", "no SQLite file")]),
    ({"state": "sqlite:///"}, [("state", "no SQLite file")]),
    ({"state": "sqlite:///:memory:"}, [("state", "no SQLite file")]),
    ({"state": "sqlite:///a.db?x=1"}, [("state", "no SQLite file")]),
    ({"state": ".retl/state.db"}, [("state", "sqlite:///PATH")]),
    ({"drain": "25 seconds"}, [("drain", "unknown unit")]),
    # names
    ({"syncs__Users": VALID["syncs"]["users"]}, [("syncs.Users", "name")]),
    ({"sources__1st": VALID["sources"]["disk"]}, [("sources.1st", "name")]),
    ({"destinations__a b": VALID["destinations"]["out"]}, [("destinations.a b", "name")]),
    ({f"syncs__{'a' * 64}": VALID["syncs"]["users"]}, [(f"syncs.{'a' * 64}", "name")]),
    # sources
    ({"sources__warehouse__type": ...}, [("sources.warehouse.type", "`bigquery`, `file`")]),
    ({"sources__warehouse__type": "bigqery"}, [("sources.warehouse.type", "mean `bigquery`")]),
    ({"sources__warehouse__project": ...}, [("sources.warehouse.project", "missing")]),
    ({"sources__warehouse__project": 12}, [("sources.warehouse.project", "quotes")]),
    ({"sources__warehouse__project": ""}, [("sources.warehouse.project", "empty")]),
    ({"sources__warehouse__path": "x"}, [("sources.warehouse.path", "not known")]),
    ({"sources__warehouse__projet": "x"}, [("sources.warehouse.projet", "`project`")]),
    ({"sources__warehouse__credentials": "a.json"}, [("sources.warehouse.credentials", "${file")]),
    ({"sources__warehouse__credentials": "[1]"}, [("sources.warehouse.credentials", "JSON")]),
    ({"sources__warehouse__credentials": " "}, [("sources.warehouse.credentials", "empty")]),
    ({"sources__warehouse__credentials": {"a": 1}}, [("sources.warehouse.credentials", "text")]),
    (
        {"sources__warehouse__credentials": "[" * 100_000},
        [("sources.warehouse.credentials", "JSON")],
    ),
    (
        {"sources__warehouse__maximum_bytes_billed": 0},
        [("sources.warehouse.maximum_bytes_billed", "more than 0")],
    ),
    (
        {"sources__warehouse__maximum_bytes_billed": "99999999PB"},
        [("sources.warehouse.maximum_bytes_billed", "too large")],
    ),
    ({"sources__warehouse__labels": {"Team": "x"}}, [("sources.warehouse.labels", "lower-case")]),
    ({"sources__warehouse__labels": {"t": "X"}}, [("sources.warehouse.labels", "lower-case")]),
    ({"sources__warehouse__labels": {"1t": "x"}}, [("sources.warehouse.labels", "start with")]),
    ({"sources__warehouse__labels": {"t": "x" * 64}}, [("sources.warehouse.labels", "63")]),
    ({"sources__warehouse__labels": {"t": 1}}, [("sources.warehouse.labels.t", "quotes")]),
    (
        {"sources__warehouse__labels": {f"k{n}": "" for n in range(65)}},
        [("sources.warehouse.labels", "64")],
    ),
    *(
        (
            dict[str, object](sources__warehouse__endpoint=url),
            [("sources.warehouse.endpoint", part)],
        )
        for url, part in [
            ("http://example.com", "https"),
            ("http://10.0.0.1:80", "https"),
            ("http://127.0.0.1.example.com", "https"),
            ("ftp://x", "not a URL"),
            ("localhost:9050", "not a URL"),
            ("https://", "not a URL"),
            ("https://x:99999", "not a URL"),
            ("https://x/?a=1", "not a URL"),
            ("https://x y", "not a URL"),
            ("https://[::1", "not a URL"),
            (URL, "not a URL"),
        ]
    ),
    *(
        (
            dict[str, object](sources__warehouse__storage_endpoint=url),
            [("sources.warehouse.storage_endpoint", s)],
        )
        for url, s in [
            ("example.com", "host:port"),
            ("http://example.com:80", "https"),
            ("grpc://example.com:80", "host:port"),
            ("example.com:80/path", "host:port"),
            ("u:hunter2@example.com:80", "host:port"),
        ]
    ),
    ({"sources__disk__path": ...}, [("sources.disk.path", "missing")]),
    # destinations
    ({"destinations__customerio__api_key": ...}, [("destinations.customerio.api_key", "missing")]),
    ({"destinations__customerio__api_key": " "}, [("destinations.customerio.api_key", "empty")]),
    ({"destinations__customerio__api_key": None}, [("destinations.customerio.api_key", "empty")]),
    ({"destinations__customerio__api_key": 12}, [("destinations.customerio.api_key", "quotes")]),
    ({"destinations__customerio__api_key": "a\nb"}, [("destinations.customerio.api_key", "char")]),
    ({"destinations__customerio__api_key": "ключ"}, [("destinations.customerio.api_key", "char")]),
    ({"destinations__customerio__region": "EU"}, [("destinations.customerio.region", "`eu`")]),
    ({"destinations__customerio__region": 5}, [("destinations.customerio.region", "`us`")]),
    ({"destinations__customerio__endpoint": URL}, [("destinations.customerio.endpoint", "URL")]),
    # syncs
    ({"syncs__users__call": "idenfity"}, [("syncs.users.call", "Did you mean `identify`?")]),
    ({"syncs__users__call": ...}, [("syncs.users.call", "missing")]),
    ({"syncs__users__source": "wharehouse"}, [("syncs.users.source", "mean `warehouse`")]),
    ({"syncs__users__source": ["warehouse"]}, [("syncs.users.source", "text")]),
    ({"syncs__users__destinations": []}, [("syncs.users.destinations", "at least one")]),
    ({"syncs__users__destinations": "out"}, [("syncs.users.destinations", "list")]),
    ({"syncs__users__destinations": ["out", "out"]}, [("syncs.users.destinations", "twice")]),
    ({"syncs__users__destinations": ["ot"]}, [("syncs.users.destinations[0]", "mean `out`")]),
    ({"syncs__users__destinations": ["out", 5]}, [("syncs.users.destinations[1]", "text")]),
    ({"syncs__users__query": ...}, [("syncs.users.query", "missing")]),
    ({"syncs__users__query": ""}, [("syncs.users.query", "empty")]),
    ({"syncs__users__query": " \n"}, [("syncs.users.query", "empty")]),
    ({"syncs__users__query": 5}, [("syncs.users.query", "text")]),
    ({"syncs__users__query_file": "q.sql"}, [("syncs.users.query_file", "both")]),
    (
        {"syncs__users__query": "{{last_sync}} {{x}} {{last_sync}}"},
        [("syncs.users.query", "mean `{{last_sync_time}}`"), ("syncs.users.query", "`{{x}}`")],
    ),
    ({"syncs__users__source": "disk"}, [("syncs.users.query", "file source")]),
    (
        {"syncs__users__source": "disk", "syncs__users__query_file": "no.sql"},
        [("syncs.users.query", "no `query`"), ("syncs.users.query_file", "no `query_file`")],
    ),
    (
        {"syncs__users__query": ..., "syncs__users__query_file": "a\0b"},
        [("syncs.users.query_file", "can't be a path")],
    ),
    (
        {"syncs__users__query": ..., "syncs__users__query_file": ""},
        [("syncs.users.query_file", "empty")],
    ),
    (
        {
            "syncs__users__query": ...,
            "syncs__users__source": "disk",
            "syncs__users__query_file": "q",
        },
        [("syncs.users.query_file", "file source")],
    ),
    ({"syncs__users__lookback": "-5m"}, [("syncs.users.lookback", "duration")]),
    ({"syncs__users__lookback": -5}, [("syncs.users.lookback", "duration")]),
    ({"syncs__users__times": "ISO"}, [("syncs.users.times", "`iso8601`")]),
    ({"syncs__users__nulls": "skip"}, [("syncs.users.nulls", "`omit`")]),
    ({"syncs__users__tags": ["a", "a"]}, [("syncs.users.tags", "twice")]),
    ({"syncs__users__tags": [""]}, [("syncs.users.tags", "empty")]),
    ({"syncs__users__columns": ["a"]}, [("syncs.users.columns", "mapping")]),
    ({"syncs__users__columns": {"a": ""}}, [("syncs.users.columns.a", "empty")]),
    ({"syncs__users__schedule": {"every": "1h"}}, [("syncs.users.schedule", "not known")]),
    *(
        ({"syncs__users__max_rejected": limit}, [("syncs.users.max_rejected", "percentage")])
        for limit in ["101%", "-1%", "%", "some", -1, 1.5, True, [], "nan%"]
    ),
    # numbers
    ({"send__concurrency": 0}, [("send.concurrency", "at least 1")]),
    ({"send__concurrency": 257}, [("send.concurrency", "at most 256")]),
    ({"send__concurrency": 1.5}, [("send.concurrency", "whole number")]),
    ({"send__concurrency": True}, [("send.concurrency", "number")]),
    ({"send__concurrency": "many"}, [("send.concurrency", "whole number")]),
    ({"send__concurrency": "9" * 5000}, [("send.concurrency", "whole number")]),
    ({"send__concurrency": [1]}, [("send.concurrency", "whole number")]),
    ({"send__concurrency": "Adaptive"}, [("send.concurrency", "`adaptive`")]),
    ({"send__max_concurrency": 0}, [("send.max_concurrency", "at least 1")]),
    ({"send__max_concurrency": 257}, [("send.max_concurrency", "at most 256")]),
    ({"send": 5}, [("send", "mapping")]),
    ({"send__rate_limit": 5}, [("send.rate_limit", "mapping")]),
    (
        {"send__rate_limit": {"requests_per_second": 0, "rows_per_second": "nan", "burst": 0}},
        [
            ("send.rate_limit.requests_per_second", "more than 0"),
            ("send.rate_limit.rows_per_second", "number"),
            ("send.rate_limit.burst", "at least 1"),
        ],
    ),
    ({"send__retry_deadline": 0}, [("send.retry_deadline", "more than 0")]),
    ({"send__timeout": None, "send__connect_timeout": "x"}, [("send.connect_timeout", "`15m`")]),
    ({"send__compression": "zstd"}, [("send.compression", "`gzip`")]),
    ({"send__buffer_bytes": "1kB"}, [("send.buffer_bytes", "at least 1000000")]),
    ({"read__streams": 1001}, [("read.streams", "at most 1000")]),
    ({"read__threads": 0}, [("read.threads", "at least 1")]),
    ({"metrics__port": 70_000}, [("metrics.port", "at most 65535")]),
    ({"log__level": "verbose"}, [("log.level", "`debug`")]),
]


@pytest.mark.parametrize(("changes", "expected"), WRONG, ids=lambda v: str(v)[:60])
def test_faults(folder: Path, changes: dict[str, object], expected: list[tuple[str, str]]) -> None:
    found = faults(folder, changed(**changes))
    assert sorted(place(fault) for fault in found) == sorted(where for where, _ in expected)
    for where, part in expected:
        texts = [f"{one.what} {one.remedy}" for one in found if place(one) == where]
        assert any(part in text for text in texts), texts
    assert "hunter2" not in "".join(map(str, found))
    assert all(", line " in fault.where for fault in found)


MANY = """\
version: 1
sources:
  warehouse: {type: bigquery}
destinations:
  customerio:
    type: customerio
    api_key: ${NO_SUCH_KEY}
syncs:
  users:
    source: warehous
    call: identfy
    destinations: [customerio, segment]
    query: SELECT {{last_sync}}
    qery: x
  users: {}
send:
  concurrency: none
  conect_timeout: 5s
"""


def test_all_faults_come_at_once_in_the_order_of_the_file(folder: Path) -> None:
    found = faults(folder, MANY, {"RETL_TIMOUT": "1"})
    assert [fault.where for fault in found] == [
        "sources.warehouse.project, line 3",
        "destinations.customerio.api_key, line 7",
        "syncs.users.source, line 10",
        "syncs.users.call, line 11",
        "syncs.users.destinations[1], line 12",
        "syncs.users.query, line 13",
        "syncs.users.qery, line 14",
        "syncs.users, line 15",
        "send.concurrency, line 17",
        "send.conect_timeout, line 18",
        "RETL_TIMOUT",
    ]


def test_a_kind_of_error_without_words_of_its_own() -> None:
    error = {"type": "bytes_too_long", "loc": ("a",), "input": b"hunter2"}
    assert explain(error, []) == ("This value can't be used.", "See docs/configuration.md.")


def test_dates_and_booleans_of_yaml_are_text(folder: Path) -> None:
    text = yaml.safe_dump(VALID).replace("query: SELECT 1", "query: 2026-12-01\n    nulls: no")
    found = faults(folder, text)
    assert [(place(fault), "`omit`" in fault.remedy) for fault in found] == [
        ("syncs.users.nulls", True)
    ]


# ------------------------------------------------------------------------------- query files


def with_file(**more: object) -> dict[str, Any]:
    changes = {"syncs__users__query": ..., "syncs__users__query_file": "sql/users.sql", **more}
    return changed(**changes)


def test_a_query_file_becomes_the_query(folder: Path) -> None:
    (folder / "sql").mkdir()
    text = "\ufeffSELECT '$$', '${X}', {{last_sync_time}}\n"
    (folder / "sql/users.sql").write_text(text, encoding="utf-8")
    users = load(folder, with_file()).syncs["users"]
    assert users.query == "SELECT '$$', '${X}', {{last_sync_time}}\n"
    assert users.query_file is None


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "no such file"),
        (b"\xff", "not UTF-8"),
        (b"  \n", "empty"),
        (b"SELECT {{since}}", "`{{since}}`"),
    ],
)
def test_a_query_file_at_fault(folder: Path, content: bytes | None, what: str) -> None:
    (folder / "sql").mkdir()
    if content is not None:
        (folder / "sql/users.sql").write_bytes(content)
    (fault,) = faults(folder, with_file())
    assert place(fault) == "syncs.users.query_file"
    assert what in fault.what


def test_a_query_file_of_a_misspelt_source_is_checked_too(folder: Path) -> None:
    found = faults(folder, with_file(syncs__users__source="warehose"))
    assert sorted(map(place, found)) == ["syncs.users.query_file", "syncs.users.source"]
