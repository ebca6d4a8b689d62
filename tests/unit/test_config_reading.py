"""What a sync reads: query, table, parameters, variables; and who the source is to Google."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import BigQuerySource, Config, SyncConfig, load_config
from pipeline.errors import ConfigError
from pipeline.source.parameters import Parameter

SECRET = "hunter2-s3cret"
BASE = {"source": "w", "call": "identify", "destinations": ["out"]}


def load(
    tmp_path: Path, sync: dict[str, Any], source: dict[str, Any] | None = None, kind: str = ""
) -> Config:
    warehouse: dict[str, Any] = {"type": "bigquery", "project": "p"} | (source or {})
    if kind == "file":
        warehouse = {"type": "file", "path": "x.parquet"}
    text = yaml.safe_dump(
        {
            "version": 1,
            "sources": {"w": warehouse},
            "destinations": {"out": {"type": "file", "path": "out.ndjson"}},
            "syncs": {"users": BASE | sync},
        },
        sort_keys=False,
    )
    file = tmp_path / "retl.yml"
    file.write_text(text)
    return load_config(file, {})


def sync_of(tmp_path: Path, sync: dict[str, Any]) -> SyncConfig:
    return load(tmp_path, sync).syncs["users"]


def source_of(tmp_path: Path, source: dict[str, Any]) -> BigQuerySource:
    found = load(tmp_path, {"query": "SELECT 1"}, source).sources["w"]
    assert isinstance(found, BigQuerySource)
    return found


def refused(tmp_path: Path, sync: dict[str, Any], kind: str = "", **source: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, sync, source, kind)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_parameters_are_short_or_typed(tmp_path: Path) -> None:
    given = {
        "plan": "pro",
        "ids": [1, 2],
        "since": {"type": "TIMESTAMP", "value": "2026-01-01T00:00:00Z"},
        "none": {"type": "DATE", "value": None},
    }
    found = sync_of(tmp_path, {"query": "SELECT @plan", "parameters": given}).parameters
    assert [each.as_parameter(name) for name, each in found.items()] == [
        Parameter(name="plan", kind="STRING", value="pro"),
        Parameter(name="ids", kind="INT64", value=(1, 2), repeated=True),
        Parameter(name="since", kind="TIMESTAMP", value=datetime(2026, 1, 1, tzinfo=UTC)),
        Parameter(name="none", kind="DATE", value=None),
    ]


@pytest.mark.parametrize(
    ("given", "where", "said"),
    [
        ({"p": {"type": "DATE", "value": SECRET}}, "parameters.p", "This is no DATE. Write"),
        ({"p": {"type": "MONEY", "value": 1}}, "parameters.p.type", "`STRING`, `INT64`"),
        ({"p": {"type": "DATE"}}, "parameters.p.value", "missing"),
        ({"p": [1, SECRET]}, "parameters.p", "not plain. Write `{type: TYPE"),
        ({"p": {"value": 1, "typ": "INT64"}}, "parameters.p.typ", "Did you mean `type`"),
        ({"1p": 1}, "parameters", "can't stand in a query"),
    ],
)
def test_a_parameter_that_is_none_is_refused(
    tmp_path: Path, given: dict[str, Any], where: str, said: str
) -> None:
    message = refused(tmp_path, {"query": "SELECT 1", "parameters": given})
    assert f"syncs.users.{where}" in message
    assert said in message


def test_variables_are_text_for_queries_and_restrictions(tmp_path: Path) -> None:
    query = sync_of(tmp_path, {"query": "SELECT {{a}}", "variables": {"a": "x_1", "b": 7}})
    assert query.variables == {"a": "x_1", "b": "7"}
    sync_of(tmp_path, {"table": "d.t", "row_restriction": "id > {{n}}", "variables": {"n": 3}})


@pytest.mark.parametrize(
    ("sync", "said"),
    [
        ({"query": "SELECT {{a}}", "variables": {"a": "x y"}}, "users.variables.a"),
        ({"query": "SELECT {{a}}", "variables": {"a": f"{SECRET}' --"}}, "use `parameters`"),
        ({"query": "SELECT {{a}}", "variables": {"a": True}}, "only letters"),
        ({"query": "SELECT 1", "variables": {"a-b": "x"}}, "can't stand in a query"),
        ({"query": "SELECT 1", "variables": {"last_sync_time": "1"}}, "retl's own variable"),
        ({"query": "SELECT {{plam}}", "variables": {"plan": "x"}}, "Did you mean `{{plan}}`?"),
        ({"table": "d.t", "row_restriction": "a > {{last_sync}}"}, "users.row_restriction"),
    ],
)
def test_a_variable_that_can_not_be_is_refused(
    tmp_path: Path, sync: dict[str, Any], said: str
) -> None:
    assert said in refused(tmp_path, sync)


@pytest.mark.parametrize(
    ("given", "table"),
    [
        ("p.d.t", "p.d.t"),
        ("d.t", "d.t"),
        ("`my-project.d.my-table`", "my-project.d.my-table"),
        ("example.com:p.d.t", "example.com:p.d.t"),
        ("d.sales 2026", "d.sales 2026"),
    ],
)
def test_a_table_and_what_of_it(tmp_path: Path, given: str, table: str) -> None:
    more = {
        "row_restriction": "id > {{last_sync_time}}",
        "selected_fields": ["id", "address.city"],
        "snapshot_time": "2026-12-01T06:00:00Z",
    }
    found = sync_of(tmp_path, {"table": given} | more)
    assert found.table == table
    assert found.snapshot_time == datetime(2026, 12, 1, 6, tzinfo=UTC)
    assert found.selected_fields == ["id", "address.city"]


@pytest.mark.parametrize(
    ("sync", "said"),
    [
        ({"table": "t"}, "not the name of a table"),
        ({"table": "p:d.t"}, "not the name of a table"),
        ({"table": "d.t; DROP"}, "not the name of a table"),
        ({"table": "p.d.t.x y"}, "not the name of a table"),
        ({"table": "d.events_*"}, "several tables"),
        ({"table": "d.t$20260101"}, "part of one"),
        ({"table": "d.t", "query": "SELECT 1"}, "`query` and `table` are both given"),
        ({"table": "d.t", "query_file": "q.sql"}, "are both given"),
        ({"table": "d.t", "parameters": {"a": 1}}, "A `table` takes no `parameters`"),
        ({"query": "SELECT 1", "row_restriction": "a"}, "A query takes no `row_restriction`"),
        ({"query": "SELECT 1", "selected_fields": ["a"]}, "takes no `selected_fields`"),
        ({"table": "d.t", "selected_fields": ["a b"]}, "not the name of a column"),
        ({"table": "d.t", "selected_fields": ["a", "a"]}, "twice"),
        ({"table": "d.t", "snapshot_time": "2026-12-01"}, "not a point in time"),
        ({"table": "d.t", "snapshot_time": "2026-12-01T06:00:00"}, "with `Z` or an offset"),
        ({}, "or `table`"),
    ],
)
def test_what_can_not_be_read_is_refused(tmp_path: Path, sync: dict[str, Any], said: str) -> None:
    assert said in refused(tmp_path, sync)


@pytest.mark.parametrize(
    "key", ["table", "row_restriction", "snapshot_time", "parameters", "variables"]
)
def test_a_file_source_takes_none_of_it(tmp_path: Path, key: str) -> None:
    value = {"parameters": {"a": 1}, "variables": {"a": "b"}, "table": "d.t"}.get(
        key, "2026-12-01T06:00:00Z"
    )
    assert f"takes no `{key}`" in refused(tmp_path, {key: value}, "file")


def test_jobs_and_who_asks(tmp_path: Path) -> None:
    found = source_of(
        tmp_path,
        {
            "priority": "batch",
            "query_timeout": "20m",
            "impersonate": " sync@p.iam.gserviceaccount.com ",
            "credentials": json.dumps(
                {
                    "type": "external_account",
                    "audience": "a",
                    "subject_token_type": "t",
                    "token_url": "u",
                    "credential_source": {"file": "f"},
                }
            ),
        },
    )
    assert (found.priority, found.query_timeout) == ("batch", 1200)
    assert found.impersonate == "sync@p.iam.gserviceaccount.com"
    assert found.credentials is not None
    plain = source_of(tmp_path, {})
    assert (plain.priority, plain.query_timeout, plain.impersonate) == ("interactive", None, None)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"priority": "urgent"}, "`interactive`, `batch`"),
        ({"query_timeout": 0}, "too small"),
        ({"impersonate": "me@example.com"}, "not the e-mail address of a service account"),
        ({"credentials": "/secrets/key.json"}, "${file:PATH}"),
        ({"credentials": f'{{"type": "authorized_user", "x": "{SECRET}"}}'}, "neither the key"),
        ({"credentials": f'{{"type": "external_account", "audience": "{SECRET}"}}'}, "lacks"),
    ],
)
def test_a_source_that_can_not_be_is_refused(
    tmp_path: Path, source: dict[str, Any], said: str
) -> None:
    assert said in refused(tmp_path, {"query": "SELECT 1"}, **source)
