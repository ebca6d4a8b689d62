import json
from pathlib import Path

import pytest

from pipeline.cli.app import run
from pipeline.cli.state import unix_seconds

CONFIG = """
version: 1
sources:
  lake: {type: file, path: users.parquet}
destinations:
  out: {type: file, path: out.ndjson}
syncs:
  users: {source: lake, call: identify, destinations: [out], tags: [people, big]}
  user_events: {source: lake, call: track, destinations: [out], description: What they did}
  groups: {source: lake, call: group, destinations: [out], tags: [people]}
"""
BROKEN = CONFIG.replace("identify", "identfy").replace("path: out.ndjson", "pth: out.ndjson")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RETL_CONFIG", raising=False)
    (tmp_path / "retl.yml").write_text(CONFIG)
    return tmp_path


def test_init_writes_a_valid_example_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["init"]) == 0
    written = (tmp_path / "retl.yml").read_text()
    assert written.startswith("#")
    (tmp_path / "retl.yml").write_text("mine")
    assert run(["init"]) == 64
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "retl.yml").read_text() == "mine"
    assert run(["init", "--force"]) == 0
    assert (tmp_path / "retl.yml").read_text() == written


def test_init_writes_where_config_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-c", str(tmp_path / "other.yml"), "init"]) == 0
    assert (tmp_path / "other.yml").exists()
    assert run(["-c", str(tmp_path / "no" / "other.yml"), "init"]) == 78
    assert "can't be written" in capsys.readouterr().err


@pytest.mark.usefixtures("project")
def test_validate_says_ok_with_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate"]) == 0
    assert capsys.readouterr().out == "OK: 1 source, 1 destination, 3 syncs\n"
    assert run(["validate", "--output", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"valid": True, "faults": [], "sources": 1, "destinations": 1, "syncs": 3}


def test_validate_shows_all_faults_with_path_and_remedy(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "retl.yml").write_text(BROKEN)
    assert run(["validate"]) == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "syncs.users.call" in captured.err
    assert "destinations.out" in captured.err
    assert run(["validate", "-o", "json"]) == 78
    told = json.loads(capsys.readouterr().out)
    assert told["valid"] is False
    assert len(told["faults"]) >= 2
    assert all(fault["where"] and fault["what"] for fault in told["faults"])


def test_a_missing_file_is_a_fault_in_both_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RETL_CONFIG", raising=False)
    assert run(["validate"]) == 78
    assert "retl init" in capsys.readouterr().err
    assert run(["validate", "-o", "json"]) == 78
    assert json.loads(capsys.readouterr().out)["valid"] is False


def test_the_file_comes_from_option_or_environment(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert run(["list"]) == 78
    assert run(["-c", str(project / "retl.yml"), "list"]) == 0
    monkeypatch.setenv("RETL_CONFIG", str(project / "retl.yml"))
    assert run(["list"]) == 0
    capsys.readouterr()


@pytest.mark.usefixtures("project")
def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    out = capsys.readouterr().out
    assert "user_events" in out
    assert "What they did" in out
    assert run(["list", "--output", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["sync"] for one in told] == ["users", "user_events", "groups"]
    assert told[0] == {
        "sync": "users",
        "description": "",
        "call": "identify",
        "source": "lake",
        "destinations": ["out"],
        "tags": ["people", "big"],
    }


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert "properties" in json.loads(capsys.readouterr().out)


CHOICES = [
    (["users"], ["users"]),
    (["groups", "users", "users"], ["users", "groups"]),
    (["--all"], ["users", "user_events", "groups"]),
    (["--select", "user*"], ["users", "user_events"]),
    (["--select", "tag:people"], ["users", "groups"]),
    (["--select", "tag:b*", "--select", "*events"], ["users", "user_events"]),
    (["groups", "--select", "tag:big"], ["users", "groups"]),
]


@pytest.mark.parametrize(("arguments", "names"), CHOICES)
@pytest.mark.usefixtures("project")
def test_which_syncs_a_command_line_names(
    arguments: list[str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.cli import run as verb

    asked = []

    async def run_sync(_config: object, name: str, **_options: object) -> None:
        asked.append(name)
        raise verb.PipelineError("stop here")

    monkeypatch.setattr(verb, "run_sync", run_sync)
    assert run(["run", *arguments]) == 70
    assert asked == names


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--all"),
        (["user"], "Did you mean 'users'?"),
        (["zzz"], "There are: users, user_events, groups."),
        (["users", "--all"], "leave out"),
        (["--select", "tag:none"], "nothing matches 'tag:none'"),
        (["--select", "Users"], "nothing matches"),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_choice_that_cannot_be_is_wrong_usage(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", *arguments]) == 64
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1764000000", 1764000000),
        ("2025-11-24T16:00:00Z", 1764000000),
        ("2025-11-24T17:00:00+01:00", 1764000000),
        ("2025-11-24T16:00:00", 1764000000),
        ("2025-11-24", 1763942400),
    ],
)
def test_times(text: str, seconds: int) -> None:
    assert unix_seconds(text) == seconds


@pytest.mark.parametrize("text", ["yesterday", "-1", "99999999999", "2999-01-01", "1e9", ""])
@pytest.mark.usefixtures("project")
def test_times_that_are_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["state", "set", "users", "--", text]) == 64
    assert "TIME" in capsys.readouterr().err
