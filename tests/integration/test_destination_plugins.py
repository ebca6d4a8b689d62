"""Destinations of installed packages: the one of docs/destinations.md, and what can go wrong."""

from __future__ import annotations

import importlib
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from aiohttp import web
from destination_conformance import CHECKS, Case, check_verdicts

from pipeline.config import Config, json_schema, load_config, plugins
from pipeline.config.reference import document
from pipeline.errors import ConfigError
from pipeline.model import Result
from pipeline.wiring import run_sync
from pipeline.wiring.routes import make_destination

DOCS = (Path(__file__).parents[2] / "docs" / "destinations.md").read_text(encoding="utf-8")
SECRET = "hunter2-the-token"
Install = Callable[..., None]


def documented(name: str) -> str:
    found = re.search(rf"```\w+\n# {re.escape(name)}\n(.*?)```", DOCS, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution on the path, as pip would."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    before = set(sys.modules)

    def one(
        name: str, modules: dict[str, str], entries: dict[str, str], version: str = "1.0"
    ) -> None:
        for module, text in modules.items():
            (site / f"{module}.py").write_text(text, encoding="utf-8")
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(head, encoding="utf-8")
        lines = "".join(f"{key} = {value}\n" for key, value in entries.items())
        (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{lines}", encoding="utf-8")
        importlib.invalidate_caches()
        plugins.forget()

    plugins.forget()
    yield one
    plugins.forget()
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and name.startswith("retl_"):
            del sys.modules[name]


@pytest.fixture
def acme(install: Install) -> None:
    project = tomllib.loads(documented("pyproject.toml"))["project"]
    install(
        project["name"],
        {"retl_acme": documented("retl_acme.py")},
        project["entry-points"][plugins.GROUP],
        project["version"],
    )


def load(folder: Path, destination: dict[str, Any], env: dict[str, str] | None = None) -> Config:
    file = folder / "retl.yml"
    content = {
        "version": 1,
        "sources": {"disk": {"type": "file", "path": "users.parquet"}},
        "destinations": {"acme": destination, "copy": {"type": "file", "path": "copy.ndjson"}},
        "syncs": {"users": {"source": "disk", "call": "identify", "destinations": ["acme"]}},
    }
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_config(file, env or {})


def fault(folder: Path, destination: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, destination)
    (found,) = caught.value.faults
    assert found.where.startswith("destinations.acme")
    assert SECRET not in str(found)
    return str(found)


@pytest.mark.usefixtures("acme")
async def test_the_documented_package_works(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"userId": [str(row) for row in range(250)]}), tmp_path / "users.parquet"
    )
    rows: list[str] = []
    statuses = iter([200, 409, 200])

    async def handle(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {SECRET}"
        events = json.loads(await request.read())["events"]
        rows.extend(one["userId"] for one in events)
        return web.Response(status=next(statuses))

    app = web.Application()
    app.router.add_post("/v2/events", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        keys = yaml.safe_load(documented("retl.yml"))["destinations"]["acme"]
        keys["token"], keys["endpoint"] = SECRET, f"http://127.0.0.1:{runner.addresses[0][1]}"
        config = load(tmp_path, keys)
        assert SECRET not in repr(config)
        report = await run_sync(config, "users")
    finally:
        await runner.cleanup()
    assert (report.error, report.result) == (None, Result.COMPLETE)
    assert report.destinations["acme"].delivered == 250
    assert sorted(map(int, rows)) == list(range(250))


@pytest.mark.usefixtures("acme")
def test_the_documented_package_keeps_what_every_destination_keeps(tmp_path: Path) -> None:
    one = make_destination(load(tmp_path, {"type": "acme", "token": SECRET}), "acme")
    case = Case(one, [SECRET], lambda body: list(json.loads(body)["events"]))
    for check in CHECKS:
        check(case)
    with pytest.raises(AssertionError, match="409"):  # which it takes for delivered
        check_verdicts(case)


@pytest.mark.usefixtures("acme")
def test_its_keys_are_like_ours(tmp_path: Path) -> None:
    keys = {"type": "acme", "token": SECRET}
    env = {"RETL_DESTINATIONS__ACME__ENDPOINT": "https://a.example"}
    config = load(tmp_path, keys, env)
    settings: Any = config.destinations["acme"]
    assert settings.endpoint == "https://a.example"
    assert Config(**dict(config)).destinations["acme"] is settings
    assert "destinations.acme.tokne" in fault(tmp_path, keys | {"tokne": "x"})
    assert "Did you mean `token`?" in fault(tmp_path, keys | {"tokne": "x"})
    assert "destinations.acme.token" in fault(tmp_path, {"type": "acme"})
    found = fault(tmp_path, keys | {"type": "acem"})
    assert "destinations.acme.type" in found
    assert "Did you mean `acme`?" in found
    for word in ("acme", "Acme"):
        assert word not in json.dumps(json_schema())
        assert word not in document()


def kind(name: str, make: str = "None") -> str:
    return (
        "from typing import Literal\n"
        "from pydantic import Field\n"
        "from pipeline.config import DestinationKind, DestinationSettings\n"
        "class Settings(DestinationSettings):\n"
        f"    type: Literal[{name!r}] = Field(description='.')\n"
        f"KIND = DestinationKind(settings=Settings, make={make})\n"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nosuchmodule", "ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("raise SystemError('hunter3')", "SystemError"),
        ("KINDS = 1", "AttributeError"),
        ("KIND = 1", "its entry point is no DestinationKind"),
        (kind("other"), 'is not Literal["acme"]'),
        (
            "from pipeline.config import DestinationKind as K\nKIND = K(settings=int, make=1)",
            "do not derive from DestinationSettings",
        ),
    ],
)
def test_a_broken_package_is_named(tmp_path: Path, install: Install, text: str, words: str) -> None:
    install("retl-acme", {"retl_acme": text}, {"acme": "retl_acme:KIND"}, "2.5")
    found = fault(tmp_path, {"type": "acme"})
    assert "`retl-acme` 2.5" in found
    assert words in found
    assert load(tmp_path, {"type": "file", "path": "x"})  # nobody who does not use it is bothered


def test_two_packages_with_one_word_are_named(tmp_path: Path, install: Install) -> None:
    install("retl-acme", {"retl_acme": kind("acme")}, {"acme": "retl_acme:KIND"})
    install("acme-retl", {"retl_acme2": kind("acme")}, {"acme": "retl_acme2:KIND"}, "3.0")
    found = fault(tmp_path, {"type": "acme"})
    assert "`acme-retl` 3.0 and the package `retl-acme` 1.0" in found


def test_a_package_with_one_of_our_words_is_named(tmp_path: Path, install: Install) -> None:
    install("retl-mine", {"retl_mine": kind("segment")}, {"segment": "retl_mine:KIND"})
    found = fault(tmp_path, {"type": "segment", "write_key": SECRET})
    assert "the package `retl-mine` 1.0" in found


SHAPED = """
class Shaped:
    def __init__(self, separator, batch_bytes):
        from pipeline.model import Envelope, Limits
        self.limits = Limits(payload_bytes=9, batch_bytes=batch_bytes, batch_rows=1)
        self.envelope = Envelope(prefix=b"[", separator=separator, suffix=b"]")
"""


@pytest.mark.parametrize(
    ("make", "words"),
    [
        ("lambda *given: Shaped(b', ', 99)", "separator is not one byte"),
        ("lambda *given: Shaped(b',', 10)", "no room for its largest payload"),
        ("lambda name, settings, encoding: 1 / 0", "ZeroDivisionError"),
        ("lambda name, settings, encoding: settings", "AttributeError"),
        ("None", "TypeError"),
    ],
)
def test_a_package_that_fails_later_is_named(
    tmp_path: Path, install: Install, make: str, words: str
) -> None:
    text = SHAPED + kind("acme", make)
    install("retl-acme", {"retl_acme": text}, {"acme": "retl_acme:KIND"})
    config = load(tmp_path, {"type": "acme"})
    with pytest.raises(ConfigError, match=rf"`retl-acme` 1.0.*{words}"):
        make_destination(config, "acme")


def test_a_package_may_refuse_its_settings(tmp_path: Path, install: Install) -> None:
    text = (
        "from pipeline.errors import ConfigError\n"
        "def refuse(name, settings, encoding):\n"
        "    raise ConfigError(f'{name}: not so')\n"
    )
    install("retl-acme", {"retl_acme": text + kind("acme", "refuse")}, {"acme": "retl_acme:KIND"})
    config = load(tmp_path, {"type": "acme"})
    with pytest.raises(ConfigError, match="acme: not so"):
        make_destination(config, "acme")


def test_settings_that_no_entry_point_names_are_refused(tmp_path: Path, install: Install) -> None:
    install("retl-acme", {"retl_acme": kind("acme")}, {"acme": "retl_acme:KIND"})
    config = load(tmp_path, {"type": "acme"})
    plugins._added.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "entry_points", lambda group: ())
        with pytest.raises(ConfigError, match="no installed package adds `type: acme`"):
            make_destination(config, "acme")
