"""The destinations' keys: what they take, what they refuse, and that no value is ever shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config, FileDestination, WebhookDestination, load_config
from pipeline.destination.webhook import Webhook
from pipeline.errors import ConfigError
from pipeline.model import Action
from pipeline.wiring.identity import fingerprint
from pipeline.wiring.routes import make_destination

KEY = "hunter2secret"


def load(folder: Path, destination: dict[str, Any], env: dict[str, str] | None = None) -> Config:
    file = folder / "retl.yml"
    content = {
        "version": 1,
        "sources": {"disk": {"type": "file", "path": "x.parquet"}},
        "destinations": {"out": destination},
        "syncs": {"users": {"source": "disk", "call": "identify", "destinations": ["out"]}},
    }
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_config(file, env or {})


def hook(**keys: Any) -> dict[str, Any]:
    return {"type": "webhook", "url": "https://example.com/in"} | keys


def made(config: Config) -> Webhook:
    one = make_destination(config, "out")
    assert isinstance(one, Webhook)
    return one


@pytest.mark.parametrize(
    ("envelope", "body", "content_type"),
    [
        (None, b"[{},{}]", "application/json"),
        ("array", b"[{},{}]", "application/json"),
        ("ndjson", b"{}\n{}\n", "application/x-ndjson"),
        ({"key": 'a"é'}, '{"a\\"é":[{},{}]}'.encode(), "application/json"),
        ({"prefix": "<", "separator": "|", "suffix": ">"}, b"<{}|{}>", "application/json"),
    ],
)
def test_envelopes(tmp_path: Path, envelope: object, body: bytes, content_type: str) -> None:
    one = made(load(tmp_path, hook(envelope=envelope)))
    request = one.request(one.envelope.wrap([b"{}", b"{}"]))
    assert request.body == body
    assert request.headers["Content-Type"] == content_type
    assert one.limits.payload_bytes + len(body) - len(b"{}{}") - 1 <= one.limits.batch_bytes


def test_everything_of_a_webhook(tmp_path: Path) -> None:
    one = made(
        load(
            tmp_path,
            hook(
                url=" https://example.com/in?token=x ",
                method="PUT",
                headers={"authorization": f" Bearer {KEY}\n"},
                content_type="application/json; charset=utf-8",
                batch_rows=10,
                batch_bytes="2kB",
                payload_bytes="1kB",
                signature={"secret": KEY, "timestamp_header": "X-Time"},
                verdicts={409: "delivered", "404": "reject", "4XX": "split"},
            ),
        )
    )
    request = one.request(b"[]")
    assert (request.method, request.url) == ("PUT", "https://example.com/in?token=x")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["Content-Type"] == "application/json; charset=utf-8"
    assert request.headers["X-Signature"].startswith("sha256=")
    assert request.headers["X-Time"].isdigit()
    limits = one.limits
    assert (limits.payload_bytes, limits.batch_bytes, limits.batch_rows) == (1_000, 2_000, 10)
    assert one._verdicts == {
        "409": Action.DELIVERED,
        "404": Action.REJECT,
        "4xx": Action.SPLIT,
    }


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        (hook(url="http://example.com"), "url"),
        (hook(url="https://user:hunter2secret@example.com"), "url"),
        (hook(url="https://example.com/#hunter2secret"), "url"),
        (hook(url="ftp://example.com"), "url"),
        (hook(url="https://[hunter2secret"), "url"),
        (hook(headers={"a b": "hunter2secret"}), "headers"),
        (hook(headers={"X": "hunter2secret\nY: 1"}), "headers"),
        (hook(headers={"X": "hunter2secret\u0001"}), "headers"),
        (hook(headers={"X": "1", "x": "2"}), "headers"),
        (hook(headers={"Content-Type": "x"}), "headers"),
        (hook(headers={"Host": "x"}), "headers"),
        (hook(headers={"X-Signature": "1"}, signature={"secret": "k"}), ""),
        (hook(signature={"secret": "k", "timestamp_header": "x-signature"}), ""),
        (hook(signature={"secret": " "}), "signature.secret"),
        (hook(signature={"secret": "k", "header": "a:b"}), "signature.header"),
        (hook(signature={"secret": "k", "prefix": "a\nb"}), "signature.prefix"),
        (hook(content_type="json"), "content_type"),
        (hook(envelope="hunter2secret"), "envelope"),
        (hook(envelope=["array"]), "envelope"),
        (hook(envelope={"key": "a", "prefix": "["}), "envelope"),
        (hook(envelope={"separator": ", "}), "envelope.separator"),
        (hook(envelope={"separator": "é"}), "envelope.separator"),
        (hook(envelope={"seperator": ","}), "envelope.seperator"),
        (hook(batch_bytes="1kB", payload_bytes="1kB"), ""),
        (hook(batch_rows=0), "batch_rows"),
        (hook(verdicts={"409": "hunter2secret"}), "verdicts.409"),
        (hook(verdicts={"6xx": "split"}), "verdicts"),
        (hook(verdicts={"40x": "split"}), "verdicts"),
        (hook(verdicts=["409"]), "verdicts"),
        (hook(method="GET"), "method"),
        ({"type": "segment"}, "write_key"),
        ({"type": "segment", "write_key": "hunter2secret:"}, "write_key"),
        ({"type": "segment", "write_key": ""}, "write_key"),
        ({"type": "rudderstack", "write_key": "k"}, "endpoint"),
        ({"type": "rudderstack", "write_key": "k", "endpoint": "http://example.com"}, "endpoint"),
        ({"type": "customerio", "api_key": "k", "calls": "some"}, "calls"),
        ({"type": "customerio", "api_key": "k", "strict": "hunter2secret"}, "strict"),
        ({"type": "file", "path": "s3://key:hunter2secret@bucket/x"}, "path"),
        ({"type": "file", "path": "gs://"}, "path"),
        ({"type": "file", "path": "gs://[hunter2secret"}, "path"),
        ({"type": "file", "path": " "}, "path"),
        ({"type": "file", "path": "x", "format": "csv"}, "format"),
        ({"type": "file", "path": "x", "file_bytes": "1kB"}, "file_bytes"),
        ({"type": "hunter2secret"}, "type"),
        ({"path": "x"}, "type"),
    ],
)
def test_what_is_refused(tmp_path: Path, keys: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, keys)
    (fault,) = caught.value.faults
    place = f"destinations.out.{where}".rstrip(".")
    assert fault.where.rpartition(", line ")[0] == place
    assert fault.what.endswith(".")
    assert fault.remedy.endswith((".", "?"))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "noted"),
    [
        ({"api_key": "sk_eu_x", "region": "us"}, "rows go to `eu`"),
        ({"api_key": "sk_eu_x", "region": "us", "endpoint": "https://e.example"}, "`endpoint`"),
        ({"api_key": "sk_eu_x", "region": "eu"}, None),
        ({"api_key": "sk_eu_x"}, None),
        ({"api_key": "plain", "region": "eu"}, None),
    ],
)
def test_a_key_of_another_region_is_noted(
    tmp_path: Path, keys: dict[str, Any], noted: str | None
) -> None:
    notes = load(tmp_path, {"type": "customerio"} | keys).destinations["out"].notes()
    assert len(notes) == (noted is not None)
    assert all(noted in note and "sk_eu_x" not in note for note in notes if noted)


def test_a_region_by_the_environment_counts_as_written(tmp_path: Path) -> None:
    keys = {"type": "customerio", "api_key": "sk_eu_x"}
    config = load(tmp_path, keys, {"RETL_DESTINATIONS__OUT__REGION": "us"})
    assert config.destinations["out"].notes()


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"path": "out.ndjson"}, False),
        ({"path": "out", "format": "parquet"}, True),
        ({"path": "gs://bucket/out/"}, True),
        ({"path": "file:///tmp/out", "format": "ndjson"}, True),
    ],
)
def test_files_and_folders(tmp_path: Path, keys: dict[str, Any], parts: bool) -> None:  # noqa: FBT001
    config = load(tmp_path, {"type": "file", "file_bytes": "1MB"} | keys)
    settings = config.destinations["out"]
    assert isinstance(settings, FileDestination)
    assert settings.parts is parts
    assert (make_destination(config, "out").limits.batch_bytes == 10**6) is parts


def test_an_open_run_goes_on_unless_rows_would_go_elsewhere(tmp_path: Path) -> None:
    def print_of(**keys: Any) -> str:
        config = load(tmp_path, hook(**keys))
        return fingerprint(config, config.syncs["users"])

    same = print_of()
    for free in ({"headers": {"X": "1"}}, {"batch_rows": 7}, {"verdicts": {"409": "delivered"}}):
        assert print_of(**free) == same
    for other in ({"url": "https://example.com/b"}, {"method": "PUT"}, {"envelope": "ndjson"}):
        assert print_of(**other) != same


def test_a_configuration_shows_no_secret(tmp_path: Path) -> None:
    url = f"https://example.com/{KEY}"
    keys = hook(url=url, headers={"X": KEY}, signature={"secret": KEY})
    config = load(tmp_path, keys)
    settings = config.destinations["out"]
    assert isinstance(settings, WebhookDestination)
    assert KEY not in repr(config)
    shown = settings.model_dump(mode="json", exclude={"url"})
    assert KEY not in json.dumps(shown)
