"""What a spooled file and its folder are on disk."""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from memory_spool import SCHEMA, NumberFrame, NumberSource

from pipeline.errors import StateError, UnusableState
from pipeline.model import Reading, Span
from pipeline.source.spool.file import Message, messages_of, pieces, size
from pipeline.source.spool.folder import Folder, Stored, key_of

IPC_SCHEMA = SCHEMA.serialize().to_pybytes()
SPAN = Span(stream=3, first=40, rows=25)


def messages(span: Span = SPAN) -> list[Message]:
    parts = [Span(stream=span.stream, first=span.first + at, rows=5) for at in range(0, 25, 5)]
    return [(part, NumberFrame(part).serialized) for part in parts]


def written(span: Span = SPAN) -> bytes:
    return b"".join(pieces(IPC_SCHEMA, messages(span)))


def test_a_file_gives_back_the_messages_as_they_were() -> None:
    data = written()
    assert len(data) == size(IPC_SCHEMA, messages())
    found = messages_of(data, SPAN)
    assert found is not None
    assert [(span, bytes(message)) for span, message in found] == messages()


def test_any_arrow_library_reads_a_file_as_it_is() -> None:
    table = pa.ipc.open_stream(written()).read_all()
    assert table.schema == SCHEMA
    assert table.column(0).to_pylist() == list(range(3_000_040, 3_000_065))


def test_every_changed_byte_is_found() -> None:
    data = written()
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert messages_of(changed, SPAN) is None, at


def test_a_cut_file_and_a_longer_one_are_found() -> None:
    data = written()
    for length in range(len(data)):
        assert messages_of(data[:length], SPAN) is None, length
    assert messages_of(data + b"\0", SPAN) is None


@pytest.mark.parametrize(
    "span",
    [replace(SPAN, stream=4), replace(SPAN, first=41), replace(SPAN, rows=20)],
    ids=["stream", "first", "rows"],
)
def test_a_file_under_another_name_is_found(span: Span) -> None:
    assert messages_of(written(), span) is None


@pytest.fixture
def reading() -> Reading:
    return NumberSource([100, 100]).reading()


@pytest.fixture
def folder(tmp_path: Path, reading: Reading) -> Folder:
    one = Folder(tmp_path / "spool" / "users", reading)
    one.open()
    return one


FILE = Stored(stream=0, first=10, end=20, nbytes=6)


def test_only_the_owner_may_look_and_names_hold_numbers(folder: Folder, tmp_path: Path) -> None:
    folder.write(FILE, [b"abc", b"def"])
    folder.mark_end(1, 100)
    found = sorted(path.name for path in folder.path.iterdir())
    assert found == [
        "00000-000000000010-000000000020.arrow",
        "00001-000000000100.end",
        "lock",
        "manifest.json",
    ]
    for path in tmp_path.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    folder.close()


def test_a_process_finds_whole_files_only(folder: Folder, reading: Reading) -> None:
    folder.write(FILE, [b"abcdef"])
    folder.mark_end(1, 100)
    (folder.path / f"{FILE.name}.12ab.part").write_bytes(b"abc")
    (folder.path / "notes.txt").write_bytes(b"")
    folder.close()
    again = Folder(folder.path.parent, reading)
    assert again.exists
    again.open()
    assert again.scan() == ([FILE], {1: 100})
    assert not list(folder.path.glob("*.part"))
    again.close()


def test_a_write_that_fails_leaves_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write(FILE, [b"abcdef"])
    assert folder.scan() == ([], {})
    assert not list(folder.path.glob("*.part"))
    folder.close()


def test_what_another_version_left_is_not_read(folder: Folder, reading: Reading) -> None:
    folder.write(FILE, [b"abcdef"])
    folder.close()
    (folder.path / "manifest.json").write_text('{"format": 99}', encoding="utf-8")
    again = Folder(folder.path.parent, reading)
    assert not again.exists
    again.open()
    assert again.scan() == ([], {})
    again.close()


def test_what_is_left_of_ended_runs_goes_and_what_is_used_or_of_others_stays(
    tmp_path: Path, reading: Reading
) -> None:
    parent = tmp_path / "spool" / "users"
    source = NumberSource([100, 100])
    made = {
        name: Folder(tmp_path / "spool" / sync, source.reading(name))
        for name, sync in [("ended", "users"), ("used", "users"), ("other", "orders")]
    }
    for one in made.values():
        one.open()
    made["ended"].close()
    made["other"].close()
    Folder(parent, reading).remove_others()
    assert [name for name, one in made.items() if one.path.exists()] == ["used", "other"]
    made["used"].close()


def test_a_complete_run_leaves_nothing(folder: Folder) -> None:
    folder.write(FILE, [b"abcdef"])
    folder.remove()
    assert not folder.path.parent.exists()
    assert folder.path.parent.parent.exists()


def test_readings_have_folders_of_their_own() -> None:
    source = NumberSource([100, 100])
    keys = {key_of(source.reading(name)) for name in ("a", "b")}
    assert len(keys) == 2
    assert key_of(source.reading("a")) in keys
    assert all(set(key) <= set("0123456789abcdef") for key in keys)


def test_a_folder_that_can_not_be_made_says_what_to_set(tmp_path: Path, reading: Reading) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UnusableState, match=r"file/users can't be used: .*RETL_SPOOL_DIR"):
        Folder(tmp_path / "file" / "users", reading).open()


def test_a_full_disk_at_the_start_is_no_fault_of_the_configuration(
    tmp_path: Path, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(StateError, match="no space left on device") as caught:
        Folder(tmp_path / "users", reading).open()
    assert not isinstance(caught.value, UnusableState)


def test_a_file_system_without_locks_keeps_what_others_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = NumberSource([100])

    def none(_file: int, _how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    one, two = (Folder(tmp_path / "users", source.reading(name)) for name in ("a", "b"))
    one.open()
    two.open()
    two.remove_others()
    assert one.path.exists()
