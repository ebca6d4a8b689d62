"""What `retl doctor` says of the state's volume and of a destination's answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from pipeline.checkpoint.volume import ephemeral, file_system, in_container
from pipeline.config import Config
from pipeline.config.sections import SpoolConfig
from pipeline.destination.verdicts import judge
from pipeline.findings import Finding, Outcome, first_failure
from pipeline.model import Answer, Reading
from pipeline.source.spool.folder import Folder
from pipeline.wiring.doctor import state_findings
from pipeline.wiring.probe import answered
from pipeline.wiring.spool_doctor import spool_findings
from pipeline.wiring.spooling import spool_parent
from pipeline.wiring.state import open_store, vanishing

MOUNTS = """overlay / overlay rw,relatime,lowerdir=/l 0 0
proc /proc proc rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
/dev/sda1 /data ext4 rw 0 0
tmpfs /data/memory tmpfs rw 0 0
/dev/sdb1 /with\\040space xfs rw 0 0
/dev/sdc1 /database btrfs rw 0 0
tmpfs /over tmpfs rw 0 0
/dev/sdd1 /over ext4 rw 0 0
short line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "overlay"),
        ("/app/.retl", "overlay"),
        ("/data", "ext4"),
        ("/data/x", "ext4"),
        ("/data/memory/x", "tmpfs"),
        ("/with space/x", "xfs"),
        ("/database/x", "btrfs"),
        ("/over/x", "ext4"),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert file_system(PurePosixPath(path), MOUNTS) == kind


def test_no_mounts_no_file_system() -> None:
    assert file_system(PurePosixPath("/data"), "") == ""


@pytest.mark.parametrize(
    ("kind", "lasts"), [("overlay", False), ("tmpfs", False), ("ext4", True), ("", True)]
)
def test_what_does_not_last(kind: str, *, lasts: bool) -> None:
    assert (ephemeral(kind) == "") is lasts


def test_kubernetes_is_known_by_its_variable() -> None:
    assert in_container({"KUBERNETES_SERVICE_HOST": "10.0.0.1"})


# -------------------------------------------------------------------------------- state


def config(state: Path) -> Config:
    return Config.model_validate(
        {
            "version": 1,
            "sources": {"lake": {"type": "file", "path": "rows.parquet"}},
            "destinations": {"out": {"type": "file", "path": "out.ndjson"}},
            "syncs": {"users": {"source": "lake", "call": "identify", "destinations": ["out"]}},
            "state": f"sqlite:///{state}",
        }
    )


def looked(
    state: Path, *, kind: str = "ext4", contained: bool = True, free: int = 10**12
) -> Mapping[str, Finding]:
    options: dict[str, Any] = {
        "mounts": lambda: f"/dev/x / {kind} rw 0 0\n",
        "contained": lambda _env: contained,
        "free": lambda _path: free,
    }
    return {one.check: one for one in state_findings(config(state), {}, **options)}


def test_a_state_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    found = looked(tmp_path / "folder" / "state.db")
    assert [one.outcome for one in found.values()] == [Outcome.OK] * 3
    assert "not there yet" in found["open"].what
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_is_there_is_opened(tmp_path: Path) -> None:
    (tmp_path / "state.db").touch()
    assert "can be read and written" in looked(tmp_path / "state.db")["open"].what


def test_a_state_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"no database, but some text that is long enough" * 100)
    found = looked(tmp_path / "state.db")
    assert list(found) == ["open"]
    assert found["open"].outcome is Outcome.FAILED
    assert found["open"].exit_code == 78


def test_a_state_below_a_file_can_t_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert looked(tmp_path / "file" / "state.db")["open"].exit_code == 78


def test_a_run_warns_of_a_state_that_ends_with_its_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"overlay": "the container's own layer", "tmpfs": "memory", "ext4": ""}
    for kind, place in kinds.items():
        mounts = tmp_path / "mounts"
        mounts.write_text(f"/dev/x / {kind} rw 0 0\n")
        monkeypatch.setattr("pipeline.wiring.state._MOUNTS", mounts)
        text = vanishing(config(tmp_path / "state.db"), {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
        assert bool(text) is bool(place)
        assert place in text
    postgres = config(tmp_path / "state.db").model_copy(update={"state": "postgresql://h/d"})
    assert vanishing(postgres, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == ""


def test_little_room_is_warned_of(tmp_path: Path) -> None:
    found = looked(tmp_path / "state.db", free=10**6)["room"]
    assert found.outcome is Outcome.WARNING
    assert found.remedy


@pytest.mark.parametrize("kind", ["overlay", "tmpfs"])
def test_a_state_that_ends_with_the_container_is_warned_of(tmp_path: Path, kind: str) -> None:
    found = looked(tmp_path / "state.db", kind=kind)["volume"]
    assert found.outcome is Outcome.WARNING
    assert "persistent volume" in found.remedy
    assert found.exit_code == 0


def test_outside_of_containers_no_volume_is_asked_for(tmp_path: Path) -> None:
    assert "volume" not in looked(tmp_path / "state.db", kind="tmpfs", contained=False)


def spooling(folder: Path, **spool: object) -> list[Finding]:
    given = config(folder / "state.db").model_dump() | {"spool": spool}
    return spool_findings(Config.model_validate(given), ["users"])


def test_a_spool_is_looked_at_if_there_is_one(tmp_path: Path) -> None:
    assert spooling(tmp_path) == []
    (fine,) = spooling(tmp_path, dir=str(tmp_path / "spool"), max_bytes=10**8)
    assert fine.outcome is Outcome.OK
    assert list(tmp_path.iterdir()) == []


def test_a_spool_without_the_room_it_may_take_is_warned_of(tmp_path: Path) -> None:
    (low,) = spooling(tmp_path, dir=str(tmp_path), max_bytes=10**18)
    assert low.outcome is Outcome.WARNING


def test_a_spool_below_a_file_can_t_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (bad,) = spooling(tmp_path, dir=str(tmp_path / "file" / "spool"))
    assert (bad.outcome, bad.exit_code) == (Outcome.FAILED, 78)


def test_a_syncs_own_folder_that_is_none_can_t_be_written(tmp_path: Path) -> None:
    given = config(tmp_path / "state.db").model_copy(
        update={"spool": SpoolConfig(dir=str(tmp_path / "spool"), max_bytes=10**8)}
    )
    parent = spool_parent(given, "users")
    assert parent is not None
    parent.parent.mkdir()
    parent.touch()
    (bad,) = spool_findings(given, ["users"])
    assert (bad.outcome, bad.exit_code) == (Outcome.FAILED, 78)
    assert str(parent) in bad.what


def test_rows_that_no_run_goes_on_with_and_those_out_of_reach_are_told(tmp_path: Path) -> None:
    given = config(tmp_path / "state.db")
    old, new = (
        given.model_copy(update={"spool": SpoolConfig(dir=str(tmp_path / name), max_bytes=10**8)})
        for name in ("old", "new")
    )
    parent = spool_parent(old, "users")
    assert parent is not None
    with closing(open_store(given)) as store:
        run = store.begin("users", "f")
        store.attach(
            run,
            Reading(streams=("a",), schema=b"", query_started=1, details={"spool": str(parent)}),
        )
    for session in ("a", "ended"):
        folder = Folder(parent, Reading(streams=(session,), schema=b"", query_started=1))
        folder.open()
        folder.close()
    fine, left = spool_findings(old, ["users"])
    assert (fine.check, left.check, left.outcome) == ("writable", "leftovers", Outcome.OK)
    assert "the next run removes them" in left.what
    for elsewhere in (new, given):
        warned = spool_findings(elsewhere, ["users"])[0]
        assert (warned.about, warned.outcome) == ("sync users", Outcome.WARNING)
        assert str(parent) in warned.what
        assert "Set `spool.dir` back" in warned.remedy


# -------------------------------------------------------------------------- destinations


@pytest.mark.parametrize(
    ("answer", "checks", "exit_code"),
    [
        (Answer(status=200), {"reachable": "ok", "key": "ok"}, 0),
        (Answer(status=400), {"reachable": "ok", "key": "ok"}, 0),
        (Answer(status=401), {"reachable": "ok", "key": "failed"}, 77),
        (Answer(status=403), {"reachable": "ok", "key": "failed"}, 77),
        (Answer(status=404), {"reachable": "ok", "key": "failed"}, 78),
        (Answer(status=301), {"reachable": "ok", "key": "failed"}, 78),
        (Answer(status=503), {"reachable": "ok", "key": "failed"}, 75),
        (Answer(status=429), {"reachable": "ok", "key": "failed"}, 75),
        (Answer(status=0, error="dns"), {"reachable": "failed", "key": "skipped"}, 75),
        (Answer(status=0, error="tls"), {"reachable": "failed", "key": "skipped"}, 75),
        (Answer(status=0, error="timeout"), {"reachable": "failed", "key": "skipped"}, 75),
    ],
)
def test_what_an_answer_to_an_empty_batch_says(
    answer: Answer, checks: Mapping[str, str], exit_code: int
) -> None:
    found = list(answered("destination cio", answer, judge(answer, 0.0)))
    assert {one.check: one.outcome.value for one in found} == checks
    assert first_failure(found) == exit_code
    assert all(one.remedy for one in found if one.outcome is Outcome.FAILED)


@pytest.mark.parametrize("url", ["url", "endpoint"])
@pytest.mark.parametrize(
    "answer", [Answer(status=404), Answer(status=0, error="dns"), Answer(status=0, error="?")]
)
def test_a_remedy_names_the_key_that_says_where_it_is(answer: Answer, url: str) -> None:
    found = list(answered("destination a", answer, judge(answer, 0.0), url=url))
    (remedy,) = [one.remedy for one in found if one.outcome is Outcome.FAILED]
    assert f"heck `{url}`" in remedy


@pytest.mark.parametrize(
    ("secure", "said"), [(True, "DNS, TCP and TLS work"), (False, "it is there, by plain http")]
)
def test_tls_is_not_said_to_work_where_there_is_none(said: str, *, secure: bool) -> None:
    answer = Answer(status=200)
    first, _ = answered("destination a", answer, judge(answer, 0.0), secure=secure)
    assert first.what == f"{said}; it answers 200"


def test_the_first_failure_gives_the_exit_code() -> None:
    def one(outcome: Outcome, code: int) -> Finding:
        return Finding(about="a", check="b", outcome=outcome, what="c", exit_code=code)

    ok, bad, worse = one(Outcome.OK, 0), one(Outcome.FAILED, 77), one(Outcome.FAILED, 78)
    assert first_failure([ok, bad, worse]) == 77
    assert first_failure([ok, one(Outcome.WARNING, 0)]) == 0
    assert first_failure([]) == 0
