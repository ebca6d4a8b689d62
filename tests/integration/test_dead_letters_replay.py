"""Dead letters sent again: whole, through the real Sender, to real receivers on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from aiohttp import web
from cryptography.fernet import Fernet

from pipeline.config import Config, load_config
from pipeline.errors import (
    ConfigError,
    CredentialsError,
    DestinationError,
    LeaseError,
    TooManyRejected,
)
from pipeline.events import Attempted, Event, Settled
from pipeline.model import Result
from pipeline.ports import LetterFilter, Obstacle, Store
from pipeline.run import replay as replay_room
from pipeline.run.replay_report import ReplayReport
from pipeline.wiring import open_store, replay_letters, run_sync

ROWS = 600
USERS = LetterFilter(sync="users")
Judge = Callable[[dict[str, Any]], bool]


class Receiver:
    """Refuses requests that hold a row it does not like, as the APIs do."""

    def __init__(self) -> None:
        self.refuses: Judge = lambda _row: False
        self.words: Callable[[dict[str, Any]], str] = lambda _row: "not this plan"
        self.status = 400
        self.delay = 0.0
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()
        self.requests: list[list[dict[str, Any]]] = []
        self.taken: list[dict[str, Any]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        rows = json.loads(await request.read())
        self.requests.append(rows)
        self.asked.set()
        await self.may_answer.wait()
        await asyncio.sleep(self.delay)
        bad = [row for row in rows if self.refuses(row)]
        if bad:
            return web.json_response({"error": self.words(bad[0])}, status=self.status)
        self.taken += rows
        return web.Response()

    @property
    def users(self) -> list[int]:
        return sorted(int(row["userId"]) for row in self.taken)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/in", found.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/in"
        yield found
    finally:
        await runner.cleanup()


def configure(folder: Path, *receivers: Receiver, **more: Any) -> Config:
    names = ["api", "other"][: len(receivers)]
    content = {
        "version": 1,
        "sources": {"disk": {"type": "file", "path": "users.parquet"}},
        "destinations": {
            name: {"type": "webhook", "url": one.url, "batch_rows": 200}
            for name, one in zip(names, receivers, strict=True)
        },
        "syncs": {"users": {"source": "disk", "call": "identify", "destinations": names}},
        "send": {"concurrency": 4, "retry_deadline": "1s"},
    }
    file = folder / "retl.yml"
    file.write_text(yaml.safe_dump(content | more), encoding="utf-8")
    return load_config(file, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    plans = ["odd" if row % 10 == 3 else "free" for row in range(ROWS)]
    ids = [str(row) if row else None for row in range(ROWS)]
    pq.write_table(pa.table({"userId": ids, "plan": plans}), tmp_path / "users.parquet")
    return tmp_path


def odd(row: dict[str, Any]) -> bool:
    return row["traits"]["plan"] == "odd"


ODD = [row for row in range(ROWS) if row % 10 == 3]


@contextmanager
def opened(config: Config) -> Iterator[Store]:
    with closing(open_store(config)) as store:
        yield store


def oldest(config: Config) -> list[int]:
    """The users of the letters that can be replayed, by their ids."""
    with opened(config) as store:
        found = store.dead_letter_page(USERS, after=0, replayable=True)
    return [int(json.loads(one.letter.payload)["userId"]) for one in found]


def left(config: Config) -> list[tuple[str, str]]:
    with opened(config) as store:
        return [(one.letter.reason, one.letter.message) for one in store.dead_letters(limit=ROWS)][
            ::-1
        ]


async def fill(folder: Path, *receivers: Receiver, **more: Any) -> Config:
    """A run that leaves a dead letter for every odd row, and one for a row without id."""
    config = configure(folder, *receivers, **more)
    for one in receivers:
        one.refuses = odd
    report = await run_sync(config, "users")
    assert report.result is Result.COMPLETE
    for one in receivers:
        one.refuses = lambda _row: False
        one.taken.clear()
        one.requests.clear()
        one.asked.clear()
    return config


async def replayed(config: Config, **how: Any) -> ReplayReport:
    (report,) = await replay_letters(config, how.pop("which", USERS), **how)
    return report


# --------------------------------------------------------------------------------- delivering


async def test_after_a_fix_all_that_was_rejected_arrives_and_is_no_dead_letter_any_more(
    folder: Path, receiver: Receiver
) -> None:
    config = await fill(folder, receiver)
    with opened(config) as store:
        payloads = {
            one.letter.payload for one in store.dead_letter_page(USERS, after=0, replayable=True)
        }
    events: list[Event] = []
    report = await replayed(config, observer=events.append)
    tally = report.destinations["api"]
    assert (report.result, report.exit_code, report.error) == (Result.COMPLETE, 0, None)
    assert (tally.letters, tally.delivered, tally.rejected) == (60, 60, 0)
    assert tally.left == {Obstacle.INVALID: 1}
    assert receiver.users == ODD
    assert {json.dumps(row, separators=(",", ":")).encode() for row in receiver.taken} == payloads
    assert len(receiver.requests) == 1  # packed as a run packs
    assert left(config) == [("missing_id", left(config)[0][1])]
    # Requests are told of; rows were counted when they were read.
    assert {type(event) for event in events} >= {Attempted}
    assert not [event for event in events if isinstance(event, Settled)]
    assert (await replayed(config)).destinations["api"].letters == 0


async def test_what_is_rejected_again_stays_with_its_new_reason(
    folder: Path, receiver: Receiver
) -> None:
    config = await fill(folder, receiver)
    receiver.refuses = lambda row: row["userId"] in {"3", "303", "593"}
    receiver.status, receiver.words = 422, lambda row: f"user {row['userId']} is strange"
    report = await replayed(config)
    tally = report.destinations["api"]
    assert (report.result, report.exit_code) == (Result.COMPLETE, 0)
    assert (tally.delivered, tally.rejected) == (57, 3)
    assert receiver.users == [row for row in ODD if row not in {3, 303, 593}]
    rejected = sorted(one for one in left(config) if one[0] != "missing_id")
    assert rejected == [
        ("rejected_422", "user 3 is strange"),  # one digit is found in any sentence
        ("rejected_422", "user <userId> is strange"),
        ("rejected_422", "user <userId> is strange"),
    ]


async def test_a_destination_that_still_refuses_all_halts_and_one_by_one_finds_the_few(
    folder: Path, receiver: Receiver
) -> None:
    config = await fill(folder, receiver)
    before = left(config)
    some = oldest(config)
    receiver.refuses = lambda row: int(row["userId"]) != some[1]
    report = await replayed(config)
    assert isinstance(report.error, TooManyRejected)
    assert (report.result, report.exit_code) == (Result.FAILED, 65)
    assert "--one-by-one" in str(report.error)
    assert len(receiver.requests) < 10
    assert left(config) == before

    few = await replayed(config, most=5)
    assert few.destinations["api"].rejected + few.destinations["api"].delivered == 5
    assert receiver.users == [some[1]]
    receiver.refuses = lambda row: int(row["userId"]) != some[30]
    rest = await replayed(config, one_by_one=True)
    assert (rest.exit_code, rest.destinations["api"].delivered) == (0, 1)
    assert receiver.users == sorted([some[1], some[30]])
    assert len(left(config)) == 61 - 2


async def test_filters_and_limit(folder: Path, receiver: Receiver) -> None:
    config = await fill(folder, receiver)
    none = await replay_letters(config, LetterFilter(sync="users", reason="rejected_500"))
    assert none == []
    first = oldest(config)[:7]
    report = await replayed(config, which=LetterFilter(), most=7)
    assert report.destinations["api"].delivered == 7
    assert [int(row["userId"]) for row in receiver.taken] == first
    dry = await replayed(config, dry_run=True)
    assert (dry.destinations["api"].letters, dry.destinations["api"].delivered) == (53, 0)
    assert len(left(config)) == 54


async def test_pages_and_a_small_buffer_change_nothing(
    folder: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_room, "_PAGE_ROWS", 7)
    config = await fill(folder, receiver)
    report = await replayed(config)
    assert report.destinations["api"].delivered == 60
    assert receiver.users == ODD


@pytest.mark.slow
async def test_each_destination_is_on_its_own(folder: Path, receiver: Receiver) -> None:
    async with receiving() as other:
        config = await fill(folder, receiver, other)
        other.status, other.refuses = 503, odd
        report = await replayed(config)
        assert isinstance(report.error, DestinationError)
        assert report.exit_code == 75
        assert report.destinations["api"].delivered == 60
        assert report.destinations["other"].delivered == 0
        assert receiver.users == ODD
        with opened(config) as store:
            counts = store.replay_counts()
        assert [one for one in counts if one.obstacle is None] == [("users", "other", None, 60)]
        other.refuses = lambda _row: False
        again = await replayed(config)
        assert (again.exit_code, again.destinations["other"].delivered) == (0, 60)
        assert receiver.users == ODD
        assert other.users == ODD


async def test_a_refused_key_halts_and_keeps_everything(folder: Path, receiver: Receiver) -> None:
    config = await fill(folder, receiver)
    before = left(config)
    receiver.status, receiver.refuses = 401, odd
    report = await replayed(config)
    assert isinstance(report.error, CredentialsError)
    assert left(config) == before


# --------------------------------------------------------------------------------- what can't be


@pytest.mark.parametrize("kept", ["ids", "none"])
async def test_without_payloads_there_is_nothing_to_send(
    folder: Path, receiver: Receiver, kept: str
) -> None:
    config = await fill(folder, receiver, dead_letters={"payload": kept})
    report = await replayed(config)
    assert report.destinations["api"].left == {Obstacle.NOT_KEPT: 60, Obstacle.INVALID: 1}
    assert receiver.requests == []


async def test_encrypted_payloads_need_their_key(folder: Path, receiver: Receiver) -> None:
    keys = [Fernet.generate_key().decode() for _ in range(3)]
    config = await fill(folder, receiver, dead_letters={"key": keys[0]})
    without = await replayed(configure(folder, receiver))
    assert without.destinations["api"].left[Obstacle.SEALED] == 60
    wrong = await replayed(configure(folder, receiver, dead_letters={"key": keys[1]}))
    tally = wrong.destinations["api"]
    assert (tally.letters, tally.delivered, tally.left[Obstacle.SEALED]) == (0, 0, 60)
    assert receiver.requests == []
    config = configure(folder, receiver, dead_letters={"key": f"{keys[2]}, {keys[0]}"})
    assert (await replayed(config)).destinations["api"].delivered == 60
    assert receiver.users == ODD


async def test_a_destination_that_has_gone_and_limits_that_shrank(
    folder: Path, receiver: Receiver
) -> None:
    async with receiving() as other:
        await fill(folder, receiver, other)
        config = configure(folder, receiver)
        small = config.model_copy(
            update={
                "destinations": {
                    "api": config.destinations["api"].model_copy(update={"payload_bytes": 50})
                }
            }
        )
        report = await replayed(small)
    assert report.destinations["other"].left[Obstacle.NO_DESTINATION] == 60
    assert report.destinations["api"].left[Obstacle.TOO_LARGE] == 60
    assert receiver.requests == []
    assert len(left(config)) == 122


async def test_no_run_and_no_other_replay_meanwhile(folder: Path, receiver: Receiver) -> None:
    config = await fill(folder, receiver)
    with opened(config) as store:
        held = store.begin_replay("users")
        report = await replayed(config)
        assert isinstance(report.error, LeaseError)
        assert report.exit_code == 75
        assert (await run_sync(config, "users")).exit_code == 75
        store.end_replay(held)
    assert receiver.requests == []
    assert (await replayed(config)).destinations["api"].delivered == 60


async def test_letters_outlive_their_sync(folder: Path, receiver: Receiver) -> None:
    await fill(folder, receiver)
    text = (folder / "retl.yml").read_text(encoding="utf-8")
    (folder / "retl.yml").write_text(text.replace("  users:\n", "  people:\n"), encoding="utf-8")
    report = await replayed(load_config(folder / "retl.yml", {}))
    assert (report.sync, report.destinations["api"].delivered) == ("users", 60)


async def test_of_a_sync_that_keeps_an_order_batches_go_one_after_another(
    folder: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_room, "_PAGE_ROWS", 7)
    await fill(folder, receiver)
    text = (folder / "retl.yml").read_text(encoding="utf-8")
    text = text.replace("    source: disk", "    source: disk\n    ordering: per_user")
    (folder / "retl.yml").write_text(text.replace("batch_rows: 200", "batch_rows: 9"), "utf-8")
    config = load_config(folder / "retl.yml", {})
    assert config.syncs["users"].is_ordered
    some = oldest(config)
    assert (await replayed(config)).destinations["api"].delivered == 60
    assert [int(row["userId"]) for row in receiver.taken] == some
    assert len(receiver.requests) == 7


# --------------------------------------------------------------------------------- elsewhere


async def test_to_a_file_or_a_folder_by_its_uri(folder: Path, receiver: Receiver) -> None:
    config = await fill(folder, receiver)
    some = oldest(config)
    report = await replayed(config, to=str(folder / "some.ndjson"), most=10)
    assert report.destinations["api"].delivered == 10
    lines = (folder / "some.ndjson").read_text(encoding="utf-8").splitlines()
    assert [int(json.loads(line)["userId"]) for line in lines] == some[:10]
    await replayed(config, to=f"file://{folder}/rest")
    (part,) = (folder / "rest").iterdir()
    rest = [int(json.loads(line)["userId"]) for line in part.read_text("utf-8").splitlines()]
    assert rest == some[10:]
    assert receiver.requests == []
    assert [reason for reason, _ in left(config)] == ["missing_id"]
    with pytest.raises(ConfigError, match="Credentials don't belong in a path"):
        await replayed(config, to="s3://key:secret@bucket/folder")


# --------------------------------------------------------------------------------- interrupted


async def test_a_stop_settles_what_is_in_flight(
    folder: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_room, "_PAGE_ROWS", 10)
    config = await fill(folder, receiver)
    stop = asyncio.Event()

    def first(event: Event) -> None:
        if isinstance(event, Attempted):
            stop.set()

    report = await replayed(config, one_by_one=True, observer=first, stop=stop)
    delivered = report.destinations["api"].delivered
    assert (report.result, report.exit_code) == (Result.INTERRUPTED, 75)
    assert 0 < delivered <= 60
    assert len(left(config)) == 61 - delivered
    assert len(receiver.taken) == delivered
    await replayed(config)
    assert receiver.users == ODD


async def test_a_lost_lease_ends_it_and_the_letters_stay(
    folder: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_room, "_COMMIT_EVERY", 0.01)
    config = await fill(folder, receiver)
    receiver.may_answer.clear()

    def unanswered(event: Event) -> None:
        raise AssertionError(event)

    async def take_over() -> None:
        await receiver.asked.wait()
        with closing(sqlite3.connect(config.state_path)) as raw, raw:
            raw.execute("UPDATE leases SET epoch = epoch + 1, holder = 'else:1:x'")

    task = asyncio.create_task(take_over())
    report = await replayed(config, observer=unanswered)
    await task
    receiver.may_answer.set()
    assert isinstance(report.error, LeaseError)
    assert len(left(config)) == 61


@pytest.mark.slow
async def test_after_sigkill_only_what_was_in_flight_is_sent_again_with_the_same_ids(
    folder: Path, receiver: Receiver
) -> None:
    config = await fill(folder, receiver)
    receiver.delay = 0.15
    command = [sys.executable, "-m", "pipeline", "dead-letters", "replay", "--one-by-one"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    environment |= {"RETL_CONCURRENCY": "2"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while len(left(config)) > 45 and time.monotonic() < until:  # noqa: ASYNC110 - its state is all
        await asyncio.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    receiver.delay = 0.0
    report = await replayed(config)
    assert report.error is None
    assert set(receiver.users) == set(ODD)
    seen = Counter(row["messageId"] for row in receiver.taken)
    assert len(seen) == len(ODD)
    # What was delivered within the second before the kill, at 2 in 0.15 s, and in flight.
    repeats = sum(seen.values()) - len(ODD)
    assert repeats <= 20
    assert len(left(config)) == 1
