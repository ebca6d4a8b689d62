"""The verbs of `retl dead-letters`, and the files that they export."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from cryptography.fernet import Fernet

from pipeline.checkpoint import SqlStore
from pipeline.checkpoint.keeping import Keeper
from pipeline.cli.app import run
from pipeline.errors import ConfigError
from pipeline.model import DeadLetter, Kept, Reading, Result
from pipeline.ports import LetterFilter
from pipeline.run import export as export_room
from pipeline.run.export import Format, export

KEY = Fernet.generate_key().decode()
CONFIG = """
version: 1
sources: {lake: {type: file, path: users.parquet}}
destinations: {out: {type: file, path: out.ndjson}}
syncs: {users: {source: lake, call: identify, destinations: [out]}}
"""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Project:
    folder: Path

    def retl(self, *arguments: str, **env: str) -> Done:
        out, err = io.StringIO(), io.StringIO()
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RETL_")} | env
        with (
            mock.patch.dict(os.environ, clean, clear=True),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = run(["dead-letters", *arguments])
        return Done(code, out.getvalue(), err.getvalue())

    def told(self, *arguments: str, **env: str) -> Any:
        done = self.retl(*arguments, "--output", "json", **env)
        assert done.code == 0, done.err
        return json.loads(done.out)

    def store(self, keeper: Keeper | None = None) -> contextlib.closing[SqlStore]:
        url = f"sqlite:///{self.folder}/.retl/state.db"
        return contextlib.closing(SqlStore(url, holder="here:1:x", keeper=keeper))

    def add(self, *letters: DeadLetter, sync: str = "users", keeper: Keeper | None = None) -> None:
        with self.store(keeper) as store:
            run = store.begin(sync, "f")
            store.attach(run, Reading(streams=("s",), schema=b"", query_started=1))
            store.add_dead_letters(run, "out", letters)
            store.finish(run, Result.COMPLETE, {})


def letter(row: int, reason: str = "rejected_400") -> DeadLetter:
    payload = json.dumps({"userId": str(row), "traits": {"note": f"secret-{row}"}}).encode()
    return DeadLetter(stream=0, row=row, reason=reason, message="no", payload=payload)


@pytest.fixture
def here(tmp_path: Path) -> Project:
    (tmp_path / "retl.yml").write_text(CONFIG, encoding="utf-8")
    return Project(tmp_path)


# --------------------------------------------------------------------------------- looking


def test_list_and_summary_never_show_content(here: Project) -> None:
    here.add(letter(1), letter(2, "missing_id"), letter(3))
    here.add(letter(4), sync="gone")
    listed = here.retl("list")
    assert (listed.code, "rejected_400" in listed.out) == (0, True)
    assert [one["row"] for one in here.told("list", "users", "--reason", "rejected_400")] == [3, 1]
    assert [one["row"] for one in here.told("list", "--since", "2020-01-01")] == [4, 3, 2, 1]
    assert here.told("list", "--destination", "elsewhere") == []
    counted = here.retl("summary")
    assert [" ".join(line.split()) for line in counted.out.splitlines()[2:]] == [
        "gone out rejected_400 1",
        "users out missing_id 1",
        "users out rejected_400 2",
    ]
    assert here.told("summary", "users", "--reason", "missing_id") == [
        {"sync": "users", "destination": "out", "reason": "missing_id", "letters": 1}
    ]
    for done in (listed, counted, here.retl("list", "--output", "json")):
        assert "secret" not in done.out + done.err
    assert "there is no sync usres" in here.retl("summary", "usres").err
    assert here.retl("list", "--since", "yesterday").code == 64


def test_show_decrypts_with_the_key_and_says_when_it_can_not(here: Project) -> None:
    here.add(letter(1), keeper=Keeper(keys=[KEY]))
    here.add(letter(2), keeper=Keeper(Kept.IDS))
    env = {"RETL_DEAD_LETTERS__KEY": KEY}
    assert here.told("show", "1", **env)["payload"]["traits"] == {"note": "secret-1"}
    assert "secret-1" in here.retl("show", "1", **env).out
    for wrong in ({}, {"RETL_DEAD_LETTERS__KEY": Fernet.generate_key().decode()}):
        done = here.retl("show", "1", **wrong)
        assert (done.code, "secret-1" in done.out) == (0, False)
        assert "`dead_letters.key` has not" in done.err
    shown = here.told("show", "2")
    assert (shown["kept"], shown["payload"]) == ("ids", {"userId": "2"})


# --------------------------------------------------------------------------------- export


def test_export_as_lines_and_as_parquet(here: Project) -> None:
    here.add(letter(1), letter(2, "missing_id"), letter(3))
    done = here.retl("export", "--to", "deep/letters.ndjson", "--reason", "rejected_400")
    assert (done.code, done.out) == (0, "")
    assert "Wrote 2 dead letters" in done.err
    path = here.folder / "deep/letters.ndjson"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(one["id"], one["row"], one["payload"]["userId"]) for one in lines] == [
        (1, 1, "1"),
        (3, 3, "3"),
    ]
    names = [
        "id",
        "run",
        "sync",
        "destination",
        "at",
        "stream",
        "row",
        "reason",
        "message",
        "kept",
        "payload",
    ]
    assert list(lines[0]) == names

    assert here.retl("export", "users", "--to", "letters.parquet").code == 0
    table = pq.read_table(here.folder / "letters.parquet")
    assert table.column_names == names
    assert table.schema.field("at").type == pa.timestamp("us", "UTC")
    assert table["row"].to_pylist() == [1, 2, 3]
    assert json.loads(table["payload"][0].as_py())["traits"] == {"note": "secret-1"}
    assert table["at"][0].as_py().timestamp() == pytest.approx(lines[0]["at"], abs=1e-5)


def test_export_to_a_folder_and_to_uris(here: Project) -> None:
    here.add(letter(1))
    (here.folder / "there").mkdir()
    for to, name in (
        ("new/", "new/dead-letters.ndjson"),
        ("there", "there/dead-letters.ndjson"),
        (f"file://{here.folder}/by-uri.ndjson", "by-uri.ndjson"),
        (f"file://{here.folder}/uris/", "uris/dead-letters.ndjson"),
    ):
        assert here.retl("export", "--to", to).code == 0, to
        assert json.loads((here.folder / name).read_text(encoding="utf-8"))["row"] == 1
    done = here.retl("export", "--to", "new/", "--format", "parquet")
    assert done.code == 0
    assert pq.read_table(here.folder / "new/dead-letters.parquet").num_rows == 1


def test_export_overwrites_only_when_told(here: Project) -> None:
    here.add(letter(1))
    path = here.folder / "there.ndjson"
    path.write_text("mine", encoding="utf-8")
    done = here.retl("export", "--to", "there.ndjson")
    assert (done.code, path.read_text(encoding="utf-8")) == (78, "mine")
    assert "--force" in done.err
    assert here.retl("export", "--to", "there.ndjson", "--force").code == 0
    assert path.read_text(encoding="utf-8") != "mine"
    assert here.retl("export", "--to", "nobody://x/y").code == 78
    assert here.retl("export", "--to", "retl.yml/below").code == 78


def test_export_without_the_key_says_what_is_missing(here: Project) -> None:
    here.add(letter(1), keeper=Keeper(keys=[KEY]))
    here.add(letter(2), keeper=Keeper(Kept.NONE))
    done = here.retl("export", "--to", "letters.ndjson")
    assert "1 without payload" in done.err
    lines = (here.folder / "letters.ndjson").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["payload"] for line in lines] == [None, None]


@pytest.mark.parametrize("form", Format)
def test_nothing_to_export_is_an_empty_file(here: Project, form: Format) -> None:
    assert here.retl("export", "--to", "empty", "--format", form.value).code == 0
    rows = pq.read_table(here.folder / "empty").num_rows if form is Format.PARQUET else None
    assert rows in {0, None}
    assert (here.folder / "empty").exists()


class Unreadable(SqlStore):
    """Fails at its second page."""

    def dead_letter_page(self, which: LetterFilter, *, after: int, **how: Any) -> Any:
        if after:
            raise OSError("the disk is gone")
        return super().dead_letter_page(which, after=after, rows=1, **how)


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("remote", [False, True])
def test_an_export_that_fails_leaves_no_file(
    here: Project, form: Format, monkeypatch: pytest.MonkeyPatch, *, remote: bool
) -> None:
    here.add(letter(1), letter(2))
    target = here.folder / "target"
    target.mkdir()
    if remote:  # an object store's: what is written shows under its name
        local = pafs.SubTreeFileSystem(str(target), pafs.LocalFileSystem())
        monkeypatch.setattr(export_room, "_opened", lambda _to: (local, "file"))
    url = f"sqlite:///{here.folder}/.retl/state.db"
    with (
        contextlib.closing(Unreadable(url, holder="here:1:y")) as store,
        pytest.raises(ConfigError, match="the disk is gone"),
    ):
        export(store, LetterFilter(), str(target / "file"), form)
    assert list(target.iterdir()) == []


def test_many_letters_go_page_by_page(here: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    here.add(*(letter(row) for row in range(2_500)))
    with here.store() as store:
        pages: list[int] = []
        page: Callable[..., Any] = store.dead_letter_page

        def counted(*given: Any, **how: Any) -> Any:
            found = page(*given, **how)
            pages.append(len(found))
            return found

        monkeypatch.setattr(store, "dead_letter_page", counted)
        path = str(here.folder / "all.parquet")
        assert export(store, LetterFilter(), path, Format.PARQUET).letters == 2_500
    assert pages == [1_000, 1_000, 500, 0]
    assert pq.read_table(path)["row"].to_pylist() == list(range(2_500))


# --------------------------------------------------------------------------------- clear, replay


def test_clear_asks_first(here: Project) -> None:
    here.add(letter(1), letter(2, "missing_id"))
    done = here.retl("clear", "users", "--reason", "missing_id")
    assert (done.code, len(here.told("list"))) == (64, 2)
    assert "forgets 1 dead letter for good" in " ".join(done.err.replace("│", " ").split())
    done = here.retl("clear", "users", "--reason", "missing_id", "--yes")
    assert (done.code, done.err) == (0, "Forgot 1 dead letter.\n")
    assert [one["row"] for one in here.told("list")] == [1]
    assert "No dead letters" in here.retl("clear", "--since", "2026-01-01", "nobody").err


def test_replay_tells_what_came_of_it(here: Project) -> None:
    here.add(letter(1), letter(2), letter(3, "missing_id"))
    here.add(letter(4), keeper=Keeper(keys=[KEY]))
    dry = here.retl("replay", "--dry-run")
    assert dry.code == 0
    assert " ".join(dry.out.split("\n")[2].split()) == "users out 2 2"
    assert len(here.told("list")) == 4
    done = here.retl("replay", "users")
    assert done.code == 0, done.err
    assert " ".join(done.out.splitlines()[2].split()) == "users out 2 2 0 2"
    assert "Left out: 1 invalid" in done.err
    assert "Left out: 1 encrypted" in done.err
    sent = (here.folder / "out.ndjson").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["userId"] for line in sent] == ["1", "2"]
    (told,) = here.told("replay", RETL_DEAD_LETTERS__KEY=KEY)
    assert told["destinations"] == {
        "out": {"replayable": 1, "delivered": 1, "rejected": 0, "left_out": {"invalid": 1}}
    }
    none = here.retl("replay")
    assert none.code == 78
    assert "None can be replayed of 1 dead letter." in none.err
    here.retl("clear", "--yes")
    assert (here.retl("replay").code, here.retl("replay").err) == (0, "No dead letters.\n")


def test_replay_to_a_path_is_relative_to_where_one_is(here: Project, tmp_path: Path) -> None:
    here.add(letter(1))
    (tmp_path / "below").mkdir()
    with contextlib.chdir(tmp_path / "below"):
        elsewhere = Project(tmp_path / "below")
        done = elsewhere.retl("replay", "--to", "some.ndjson", RETL_CONFIG="../retl.yml")
    assert done.code == 0, done.err
    assert (tmp_path / "below/some.ndjson").exists()
    assert not (tmp_path / "out.ndjson").exists()


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
