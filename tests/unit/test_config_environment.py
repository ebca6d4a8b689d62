from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.config import (
    SHORT_NAMES,
    BigQuerySource,
    ColumnConfig,
    Config,
    CustomerioDestination,
    load_config,
)
from pipeline.config.environment import OTHERS, variable
from pipeline.config.keys import tunables
from pipeline.errors import ConfigError, Fault

FERNET = "A" * 43 + "="  # 32 bytes in base64
BASE = """\
version: 1
sources:
  ware-house: {type: bigquery, project: p}
  disk: {type: file, path: x}
destinations:
  cio: {type: customerio, api_key: k}
syncs:
  users: {source: ware-house, call: identify, destinations: [cio], query: SELECT 1}
"""


def load(folder: Path, text: str, env: Mapping[str, str]) -> Config:
    (folder / "retl.yml").write_text(text)
    return load_config(folder / "retl.yml", env)


def faults(folder: Path, text: str, env: Mapping[str, str]) -> tuple[Fault, ...]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, env)
    return caught.value.faults


def value(config: Config, key: str) -> object:
    found: object = config
    for part in key.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


# ------------------------------------------------------------------------------- variables

SETTINGS = [
    ("drain", "10s", 10.0),
    ("state", "sqlite:///other.db", "sqlite:///other.db"),
    ("read.streams", "9", 9),
    ("read.threads", "3", 3),
    ("read.compression", "lz4", "lz4"),
    ("read.retry_deadline", "5m", 300.0),
    ("spool.dir", "/var/spool/retl", "/var/spool/retl"),
    ("spool.max_bytes", "1GB", 10**9),
    ("spool.when", "always", "always"),
    ("send.concurrency", " 32 ", 32),
    ("send.max_concurrency", "128", 128),
    ("send.rate_limit.requests_per_second", "12.5", 12.5),
    ("send.rate_limit.rows_per_second", "1e4", 10_000.0),
    ("send.rate_limit.burst", "7", 7),
    ("send.retry_deadline", "1h", 3600.0),
    ("send.timeout", "5", 5.0),
    ("send.connect_timeout", "2s", 2.0),
    ("send.read_timeout", "3s", 3.0),
    ("send.compression", "gzip", "gzip"),
    ("send.buffer_bytes", "16MiB", 16 * 2**20),
    ("http.ca_file", "ca.pem", "ca.pem"),
    ("http.proxy", "http://me:x@proxy:3128", SecretStr("http://me:x@proxy:3128")),
    ("metrics.port", "9100", 9100),
    ("metrics.host", "127.0.0.1", "127.0.0.1"),
    ("retention.runs", "365d", 365 * 86_400.0),
    ("retention.dead_letters", "7d", 7 * 86_400.0),
    ("dead_letters.payload", "ids", "ids"),
    ("dead_letters.key", FERNET, SecretStr(FERNET)),
    ("log.level", "debug", "debug"),
    ("log.format", "json", "json"),
]
FILE = (
    BASE
    + """\
read: {streams: 2}
send: {concurrency: 2, rate_limit: {requests_per_second: 2}}
metrics:
log: {level: error}
"""
)


def test_every_tunable_is_in_this_table() -> None:
    assert {".".join(map(str, path)) for path in tunables()} == {key for key, _, _ in SETTINGS}
    assert set(SHORT_NAMES.values()) <= {key for key, _, _ in SETTINGS}


@pytest.mark.parametrize(("key", "text", "expected"), SETTINGS)
@pytest.mark.parametrize("content", [BASE, FILE])
def test_the_long_name(tmp_path: Path, content: str, key: str, text: str, expected: object) -> None:
    name = variable(tuple(key.split(".")))
    assert value(load(tmp_path, content, {name: text}), key) == expected


@pytest.mark.parametrize(("name", "key"), SHORT_NAMES.items())
def test_the_short_name(tmp_path: Path, name: str, key: str) -> None:
    text, expected = next((text, found) for path, text, found in SETTINGS if path == key)
    assert value(load(tmp_path, FILE, {name: text}), key) == expected
    long = variable(tuple(key.split(".")))
    assert value(load(tmp_path, FILE, {name: text, long: text}), key) == expected


def test_the_names_that_are_promised() -> None:
    assert variable(("send", "concurrency")) == "RETL_SEND__CONCURRENCY"
    assert {"RETL_CONCURRENCY", "RETL_RATE_LIMIT", "RETL_ROWS_RATE_LIMIT"} <= {*SHORT_NAMES}
    assert len(SHORT_NAMES) == 16


NAMED = [
    ("RETL_SOURCES__WARE_HOUSE__PROJECT", "q", "sources.ware-house.project", "q"),
    ("RETL_SOURCES__WARE_HOUSE__MAXIMUM_BYTES_BILLED", "1GB", None, 10**9),
    ("RETL_SOURCES__DISK__PATH", "y", "sources.disk.path", "y"),
    ("RETL_DESTINATIONS__CIO__REGION", "eu", "destinations.cio.region", "eu"),
    ("RETL_SYNCS__USERS__LOOKBACK", "5m", "syncs.users.lookback", 300.0),
    ("RETL_SYNCS__USERS__MAX_REJECTED", "1%", "syncs.users.max_rejected", "1%"),
    ("RETL_SYNCS__USERS__MAX_REJECTED", "10", "syncs.users.max_rejected", 10),
    ("RETL_SYNCS__USERS__CALL", "track", "syncs.users.call", "track"),
    ("RETL_SYNCS__USERS__QUERY", "SELECT '$$'", "syncs.users.query", "SELECT '$$'"),
]


@pytest.mark.parametrize(("name", "text", "key", "expected"), NAMED)
def test_named_things(
    tmp_path: Path, name: str, text: str, key: str | None, expected: object
) -> None:
    config = load(tmp_path, BASE, {name: text})
    assert value(config, key or "sources.ware-house.maximum_bytes_billed") == expected


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    config = load(tmp_path, BASE, {"RETL_CONCURRENCY": "", "RETL_NONSENSE": ""})
    assert config.send.concurrency == "adaptive"


def test_a_variable_wins_over_a_missing_insertion(tmp_path: Path) -> None:
    text = BASE.replace("api_key: k", "api_key: '${NOT_SET}'")
    config = load(tmp_path, text, {"RETL_DESTINATIONS__CIO__API_KEY": "key"})
    destination = config.destinations["cio"]
    assert isinstance(destination, CustomerioDestination)
    assert destination.api_key.get_secret_value() == "key"


@pytest.mark.parametrize(
    ("env", "where", "part"),
    [
        ({"RETL_CONCURENCY": "1"}, "RETL_CONCURENCY", "`RETL_CONCURRENCY`"),
        ({"RETL_SEND__TIMEOUTS": "1"}, "RETL_SEND__TIMEOUTS", "`RETL_SEND__TIMEOUT`"),
        ({"RETL_VERSION": "1"}, "RETL_VERSION", "not known"),
        ({"RETL_SOURCES__DISK__TYPE": "file"}, "RETL_SOURCES__DISK__TYPE", "not known"),
        ({"RETL_SYNCS__USERS__TAGS": "a"}, "RETL_SYNCS__USERS__TAGS", "not known"),
        ({"RETL_SYNCS__USER__CALL": "x"}, "RETL_SYNCS__USER__CALL", "`RETL_SYNCS__USERS__CALL`"),
        ({"RETL_": "1"}, "RETL_", "not known"),
        ({"RETL_TIMEOUT": "soon"}, "RETL_TIMEOUT (send.timeout)", "`15m`"),
        ({"RETL_CONCURRENCY": "0"}, "RETL_CONCURRENCY (send.concurrency)", "at least 1"),
        ({"RETL_LOG__LEVEL": "x"}, "RETL_LOG__LEVEL (log.level)", "`debug`"),
        (
            {"RETL_TIMEOUT": "1", "RETL_SEND__TIMEOUT": "2"},
            "RETL_SEND__TIMEOUT",
            "`RETL_TIMEOUT` sets `send.timeout` too",
        ),
        ({"RETL_SYNCS__USERS__SOURCE": "x"}, "RETL_SYNCS__USERS__SOURCE (syncs.users.source)", ""),
        ({"RETL_SYNCS__USERS__QUERY": " "}, "RETL_SYNCS__USERS__QUERY (syncs.users.query)", ""),
        (
            {"RETL_SOURCES__DISK__PROJECT": "x"},
            "RETL_SOURCES__DISK__PROJECT (sources.disk.project)",
            "not known",
        ),
    ],
)
def test_variables_at_fault(tmp_path: Path, env: dict[str, str], where: str, part: str) -> None:
    (fault,) = faults(tmp_path, BASE, env)
    assert fault.where == where
    assert part in f"{fault.what} {fault.remedy}"


def test_a_variable_that_could_mean_two_things(tmp_path: Path) -> None:
    text = BASE.replace("  disk:", "  ware_house: {type: bigquery, project: p}\n  disk:")
    assert load(tmp_path, text, {})
    (fault,) = faults(tmp_path, text, {"RETL_SOURCES__WARE_HOUSE__PROJECT": "x"})
    assert "`sources.ware-house.project` or `sources.ware_house.project`" in fault.what


@pytest.mark.parametrize("text", ["send: 5", "send: {rate_limit: 5}", "send: []"])
def test_a_variable_for_a_section_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    (fault,) = faults(tmp_path, BASE + text, {"RETL_RATE_LIMIT": "1"})
    assert "mapping" in fault.what


def test_what_kubernetes_sets_for_services_is_passed_over(tmp_path: Path) -> None:
    env = {
        "RETL_SERVICE_HOST": "10.0.0.1",
        "RETL_SERVICE_PORT": "80",
        "RETL_SERVICE_PORT_HTTP": "80",
        "RETL_PORT": "tcp://10.0.0.1:80",
        "RETL_PORT_80_TCP": "tcp://10.0.0.1:80",
        "RETL_PORT_80_TCP_PROTO": "tcp",
        "RETL_PORT_80_TCP_PORT": "80",
        "RETL_PORT_80_TCP_ADDR": "10.0.0.1",
        "RETL_METRICS_SERVICE_HOST": "10.0.0.1",
        "RETL_METRICS_PORT": "tcp://10.0.0.1:80",
    }
    assert load(tmp_path, BASE, env).metrics.port is None


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [("http://127.0.0.1:9050", "http://127.0.0.1:9050"), ("localhost:9050",) * 2],
)
def test_the_emulator_variable(tmp_path: Path, host: str, endpoint: str) -> None:
    own = "  own: {type: bigquery, project: p, endpoint: 'https://own.example'}\n"
    text = BASE.replace("  disk:", f"{own}  disk:")
    config = load(tmp_path, text, {"BIGQUERY_EMULATOR_HOST": host})
    assert value(config, "sources.ware-house.endpoint") == endpoint.replace(
        "localhost:", "http://localhost:"
    )
    assert value(config, "sources.own.endpoint") == "https://own.example"
    assert value(load(tmp_path, text, {}), "sources.ware-house.endpoint") is None


def test_an_emulator_elsewhere_is_refused(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, BASE, {"BIGQUERY_EMULATOR_HOST": "example.com:9050"})
    assert fault.where == "BIGQUERY_EMULATOR_HOST (sources.ware-house.endpoint)"


def test_the_other_variables_are_accepted(tmp_path: Path) -> None:
    values = dict.fromkeys(OTHERS, "http://127.0.0.1:1") | {"RETL_SHARDS": "1"}
    assert load(tmp_path, BASE, values)


# ------------------------------------------------------------------------------- insertion


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("${A}", "1"),
        ("x${A}y${B}z", "x1y2z"),
        ("${ A }", "1"),
        ("$${A}", "${A}"),
        ("$$$${A}$", "$${A}$"),
        ("$A $1 $", "$A $1 $"),
        ("cost: 5$$", "cost: 5$"),
        ("${EMPTY}", ""),
        ("${NESTED}", "${A}"),
        ("${file:secret}", "s3"),
        ("${file: sub/deep }!", "deep\n\n  text!"),
    ],
)
def test_insertion(tmp_path: Path, written: str, found: str) -> None:
    (tmp_path / "secret").write_text("s3\r\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/deep").write_text("deep\n\n  text\n")
    text = BASE.replace("query: SELECT 1", f"query: SELECT 1, description: '{written}'")
    env = {"A": "1", "B": "2", "EMPTY": "", "NESTED": "${A}"}
    assert load(tmp_path, text, env).syncs["users"].description == found


def test_insertion_reaches_numbers_lists_and_mappings(tmp_path: Path) -> None:
    text = BASE.replace("[cio], query", "['${D}'], tags: ['${D}'], columns: {a: '${D}'}, query")
    config = load(tmp_path, text + "send: {concurrency: '${N}'}\ndrain: ${N}s\n", {"D": "cio"} | N)
    users = config.syncs["users"]
    assert (users.destinations, users.tags) == (["cio"], ["cio"])
    assert users.columns == {"a": ColumnConfig(to="cio")}
    assert (config.send.concurrency, config.drain) == (7, 7)


N = {"N": "7"}


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("${NOT_SET}", "`NOT_SET` is not set"),
        ("${}", "not the name"),
        ("${a b}", "not the name"),
        ("${A:-default}", "not the name"),
        ("${file:}", "not the name"),
        ("${1A}", "not the name"),
        ("x ${A", "not closed"),
        ("${file:A", "not closed"),
        ("${A${A}}", "not closed"),
        ("${file:missing}", "`missing` can't be read: no such file"),
        ("${file:.}", "is a directory"),
        ("${file:/dev/zero}", "larger than"),
        ("${file:binary}", "not UTF-8"),
    ],
)
def test_insertions_at_fault(tmp_path: Path, written: str, what: str) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    text = BASE.replace("api_key: k", f"api_key: '{written}'")
    found = faults(tmp_path, text, {"A": "1"})
    assert {fault.where for fault in found} == {"destinations.cio.api_key, line 6"}
    assert any(what in fault.what for fault in found)


def test_a_missing_insertion_is_the_only_complaint_about_its_value(tmp_path: Path) -> None:
    text = """\
version: 1
sources:
  ware-house: {type: bigquery, project: '${A}', endpoint: '${B}', labels: {team: '${C}'}}
  other: {type: '${D}'}
destinations:
  cio: {type: customerio, api_key: k, region: '${E}'}
syncs:
  users:
    source: ${F}
    call: ${G}
    destinations: ['${H}', '${H}']
    query_file: ${I}
send: {concurrency: '${J}', timeout: '${K}', buffer_bytes: '${L}'}
state: ${M}
"""
    found = faults(tmp_path, text, {})
    assert [fault.what for fault in found] == [
        f"The environment variable `{name}` is not set." for name in "ABCDEFGHHIJKLM"
    ]


def test_a_query_with_a_missing_insertion_is_still_checked(tmp_path: Path) -> None:
    text = BASE.replace("query: SELECT 1", "query: 'SELECT ${A} {{since}}'")
    whats = [fault.what for fault in faults(tmp_path, text, {})]
    assert whats == [
        "The environment variable `A` is not set.",
        "`{{since}}` is not a variable of queries.",
    ]


# ------------------------------------------------------------------------------- secrecy

SECRET = "hunter2secret"
PLACES = [
    *(
        (BASE.replace(old, new), {"X": text})
        for text in (SECRET, f" {SECRET}\n{SECRET}", f'{{"{SECRET}": ', f"{{{{{SECRET}}}}}")
        for old, new in [
            ("api_key: k", "api_key: '${X}', region: '${X}'"),
            ("api_key: k", "api_key: ['${X}']"),
            ("api_key: k", "api_key: '${X} ${NOT_SET}'"),
            ("project: p", "project: p, credentials: '${X}'"),
            ("project: p", "project: p, endpoint: '${X}', storage_endpoint: '${X}'"),
            ("project: p", "project: p, maximum_bytes_billed: '${X}', labels: {A: '${X}'}"),
            ("type: bigquery", "type: '${X}'"),
            ("source: ware-house", "source: '${X}'"),
            ("destinations: [cio]", "destinations: ['${X}', '${X}']"),
            ("call: identify", "call: '${X}', lookback: '${X}', max_rejected: '${X}'"),
            ("query: SELECT 1", "query: 'SELECT {{${X}}} ${X} {{nope}}'"),
            ("version: 1", "version: '${X}'\nstate: '${X}'\ndrain: '${X}'"),
            ("version: 1", "version: 2\nsend: {concurrency: '${X}', compression: '${X}'}"),
            ("version: 1", "version: 2\nsend: '${X}'"),
        ]
    ),
    *(
        (BASE, {name: f"{{{{{SECRET}}}}}"})
        for name in [
            *(name for name in SHORT_NAMES if name != "RETL_SPOOL_DIR"),  # any text is a path
            "RETL_NONSENSE",
            "RETL_SYNCS__USERS__QUERY",
            "RETL_SYNCS__USERS__SOURCE",
            "RETL_SYNCS__USERS__CALL",
            "RETL_SOURCES__WARE_HOUSE__CREDENTIALS",
            "RETL_SOURCES__WARE_HOUSE__ENDPOINT",
            "BIGQUERY_EMULATOR_HOST",
        ]
    ),
    (BASE.replace("api_key: k", f"api_key: [{SECRET}]"), {}),
    (BASE.replace("api_key: k", f"api_key: '{SECRET} {SECRET}'"), {}),
    (BASE.replace("project: p", f"project: p, credentials: '{SECRET}'"), {}),
    (BASE + f"state: mysql://u:{SECRET}@host/db", {}),
]


@pytest.mark.parametrize(("text", "env"), PLACES)
def test_no_secret_and_no_value_of_the_environment_is_ever_shown(
    tmp_path: Path, text: str, env: dict[str, str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, env)
    shown = "".join(traceback.format_exception(caught.value))
    assert caught.value.faults
    assert SECRET not in shown
    assert SECRET not in repr(caught.value)


def test_no_file_that_is_inserted_is_ever_shown(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f'{{"private_key": "{SECRET}"')
    text = BASE.replace("project: p", "project: p, credentials: '${file:key}'")
    assert SECRET not in "".join(map(str, faults(tmp_path, text, {})))


def test_a_loaded_configuration_hides_its_secrets(tmp_path: Path) -> None:
    key = {"type": "service_account", "client_email": "a@b", "token_uri": "https://t"}
    (tmp_path / "key").write_text(json.dumps(key | {"private_key": SECRET}) + "\n")
    text = BASE.replace("project: p", "project: p, credentials: '${file:key}'")
    config = load(tmp_path, text.replace("api_key: k", "api_key: '${X}'"), {"X": SECRET})
    assert SECRET not in repr(config)
    assert SECRET not in config.model_dump_json()
    source = config.sources["ware-house"]
    assert isinstance(source, BigQuerySource)
    assert source.credentials is not None
    assert SECRET in source.credentials.get_secret_value()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ({"type": "service_account", "private_key": SECRET}, "lacks client_email, token_uri"),
        (
            {
                "type": "authorized_user",
                "client_email": "a@b",
                "private_key": SECRET,
                "token_uri": "t",
            },
            "neither the key of a service account nor an external account",
        ),
    ],
)
def test_half_a_key_is_found_before_it_is_used(
    tmp_path: Path, key: dict[str, str], said: str
) -> None:
    (tmp_path / "key").write_text(json.dumps(key))
    text = BASE.replace("project: p", "project: p, credentials: '${file:key}'")
    found = "".join(map(str, faults(tmp_path, text, {})))
    assert said in found
    assert SECRET not in found
