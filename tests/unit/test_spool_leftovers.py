"""What lies in a spool's directory and no run goes on with."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from memory_spool import NumberSource

from pipeline.source.spool.folder import Folder, Stored, check, key_of
from pipeline.source.spool.leftovers import leftovers, remove

STATE, OTHER = "0123abcd", "dcba3210"
WEEK = 7 * 86_400


def left(root: Path, parent: str, session: str, *, age: float = 0, used: bool = False) -> Folder:
    """A folder with six bytes of rows, by a process that is gone, or not."""
    one = Folder(root / parent, NumberSource([100]).reading(session))
    one.open()
    one.write(Stored(stream=0, first=0, end=10, nbytes=6), [b"abcdef"])
    if not used:
        one.close()
    then = time.time() - age
    os.utime(one.path, (then, then))
    return one


def key(session: str) -> str:
    return key_of(NumberSource([100]).reading(session))


def names(root: Path, unfinished: dict[str, str] | None = None) -> list[str]:
    found = leftovers(root, STATE, unfinished or {}, {"users": 1})
    assert all(one.nbytes >= 6 for one in found)
    return [one.path.parent.name for one in found]


def test_what_no_unfinished_run_reads_is_left_over_whatever_its_sync(tmp_path: Path) -> None:
    left(tmp_path, f"users-{STATE}", "ended")
    left(tmp_path, f"users-{STATE}", "open")
    left(tmp_path, f"renamed-{STATE}", "gone")
    found = leftovers(tmp_path, STATE, {key("open"): "users"}, {"users": 1})
    assert {one.path.name for one in found} == {key("ended"), key("gone")}
    assert all(one.ours for one in found)
    for one in found:
        remove(one)
    assert [path.name for path in tmp_path.rglob("*.arrow")] == [
        "00000-000000000000-000000000010.arrow"
    ]
    assert [path.name for path in tmp_path.iterdir()] == [f"users-{STATE}"]


def test_of_a_sync_that_is_not_configured_an_open_run_has_a_week(tmp_path: Path) -> None:
    unfinished = {key("new"): "renamed", key("old"): "renamed", key("mine"): "users"}
    left(tmp_path, f"renamed-{STATE}", "new", age=WEEK - 60)
    left(tmp_path, f"users-{STATE}", "mine", age=9 * WEEK)
    assert names(tmp_path, unfinished) == []
    left(tmp_path, f"renamed-{STATE}", "old", age=WEEK + 60)
    assert names(tmp_path, unfinished) == [f"renamed-{STATE}"]


def test_another_states_rows_are_told_of_after_a_week_and_are_not_ours(tmp_path: Path) -> None:
    left(tmp_path, f"users-{OTHER}", "new")
    assert names(tmp_path) == []
    left(tmp_path, f"orders-{OTHER}", "old", age=WEEK + 60)
    (found,) = leftovers(tmp_path, STATE, {}, {})
    assert (found.path.parent.name, found.ours) == (f"orders-{OTHER}", False)


def test_what_a_process_uses_stays(tmp_path: Path) -> None:
    used = left(tmp_path, f"users-{STATE}", "used", used=True)
    (found,) = leftovers(tmp_path, STATE, {}, {})
    remove(found)
    assert used.path.exists()
    used.close()
    remove(found)
    assert not used.path.parent.exists()


def test_a_folder_that_was_half_removed_goes_when_no_process_can_be_opening_it(
    tmp_path: Path,
) -> None:
    one = left(tmp_path, f"users-{STATE}", "half")
    (one.path / "manifest.json").unlink()
    assert names(tmp_path) == []
    then = time.time() - 3_700
    os.utime(one.path, (then, then))
    (found,) = leftovers(tmp_path, STATE, {}, {})
    remove(found)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_comes_while_all_is_removed_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = left(tmp_path, f"users-{STATE}", "busy", used=True)
    late, rmdir = Stored(stream=0, first=10, end=20, nbytes=1), os.rmdir
    written: list[str] = []

    def after_one_more(path: str, **named: int) -> None:
        if late.name not in written:
            written.append(late.name)
            one.write(late, [b"x"])
        rmdir(path, **named)

    monkeypatch.setattr(os, "rmdir", after_one_more)
    one.remove()
    assert written
    assert not one.path.parent.exists()


def test_what_others_keep_in_the_directory_is_none_of_ours(tmp_path: Path) -> None:
    for name in (f"users-{STATE}", "users-backup", STATE, "notes"):
        (tmp_path / name / "folder").mkdir(parents=True)
        (tmp_path / name / "folder" / "rows.arrow").write_bytes(b"abc")
    (tmp_path / f"file-{STATE}").write_bytes(b"abc")
    assert leftovers(tmp_path, STATE, {}, {}) == []
    assert leftovers(tmp_path / "nowhere", STATE, {}, {}) == []


def test_a_check_leaves_nothing_and_a_full_disk_may_have_room_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(tmp_path / "spool" / "users")
    assert list((tmp_path / "spool").iterdir()) == []

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    check(tmp_path / "spool" / "users")
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_check_while_another_run_removes_the_empty_folder_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def made_and_removed(path: Path, **how: Any) -> None:
        mkdir(path, **how)
        path.rmdir()

    monkeypatch.setattr(Path, "mkdir", made_and_removed)
    check(tmp_path / "users")
    assert list(tmp_path.iterdir()) == []
