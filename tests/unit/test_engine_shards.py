"""Several engines on one run, in virtual time: who starts, who waits, who ends it, what is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

import pytest
from memory_run import MemoryDeliverer, MemorySource, everything
from shard_run import Job, Pod, job
from virtual_time import run as in_virtual_time

from pipeline.errors import (
    CredentialsError,
    DestinationError,
    LeaseError,
    ReadingExpired,
    ShardHeld,
    TooManyRejected,
    UnusableState,
)
from pipeline.events import Finished, Restarted, Waiting, Warned
from pipeline.model import Batch, Counts, Reading, Result, Window
from pipeline.ports import Frame, OpenRun, Shard, Standing
from pipeline.run.report import RunReport

__all__ = ["job"]

ROWS = (20, 9, 0, 14, 31, 5, 8)
Jobs = Callable[..., Job]


class Slow(MemorySource):
    """Its query takes longer than the lease of a shard."""

    async def start(self, window: Window, job_key: str) -> Reading:
        await asyncio.sleep(20)
        return await super().start(window, job_key)


class Never(MemoryDeliverer):
    """Its first request gets no answer until it is told."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        super().__init__(self.wait)

    async def wait(self, _batch: Batch) -> None:
        await self.go.wait()


def delivered(*pods: Pod) -> list[tuple[int, int]]:
    return sorted(row for pod in pods for row in pod.api.delivered)


def finished(pod: Pod) -> Finished:
    (event,) = [event for event in pod.events if isinstance(event, Finished)]
    return event


def activities(pod: Pod) -> set[str]:
    return {event.activity for event in pod.events if isinstance(event, Waiting)}


async def all_of(*pods: Pod) -> list[RunReport]:
    return [await pod.ended() for pod in pods]


def test_every_row_is_sent_once_by_one_query_and_one_closes_the_run(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)
        pods = [one.pod(index, source=Slow(ROWS)) for index in (1, 0, 2)]
        reports = await all_of(*pods)

        assert [report.exit_code for report in reports] == [0, 0, 0]
        assert delivered(*pods) == everything(ROWS)
        assert sum(len(pod.source.started) for pod in pods) == 1
        assert {stream % 3 for stream, _ in pods[0].api.delivered} == {1}
        assert sorted(finished(pod).whole for pod in pods) == [False, False, True]
        assert sum(report.bytes_billed for report in reports) == 10
        assert "another shard starts the query" in activities(pods[1])
        store = one.store("looker:1:a")
        (record,) = store.runs()
        assert record.result is Result.COMPLETE
        assert record.counts["api"].delivered == sum(ROWS)
        assert store.window("users").sequence == 2
        assert [report.destinations["api"].delivered for report in reports] == [40, 42, 5]
        shards = [report.as_dict()["shard"] for report in reports]
        assert shards == [{"index": index, "of": 3, "job": "job"} for index in (1, 0, 2)]

    in_virtual_time(main())


def test_a_process_alone_has_no_shard(job: Jobs) -> None:
    async def main() -> None:
        pod = job(ROWS).alone()
        report = await pod.ended()
        assert (report.exit_code, report.as_dict()["shard"]) == (0, None)
        assert finished(pod).whole
        assert pod.shares == [(0, 1)]

    in_virtual_time(main())


@pytest.mark.slow
def test_a_starter_that_dies_before_its_query_has_ended(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)
        starter = one.pod(0, source=Slow(ROWS))
        await asyncio.sleep(0.5)
        others = [one.pod(1), one.pod(2)]
        await asyncio.sleep(16)
        await starter.kill()
        again = one.pod(0)
        reports = await all_of(*others, again)

        assert [report.exit_code for report in reports] == [0, 0, 0]
        assert delivered(*others, again) == everything(ROWS)
        keys = [key for pod in (*others, again) for key in pod.source.started]
        assert len(keys) == 1  # the dead one had not come so far as to say its own
        assert "shard 0 is still another process's" in activities(again)

    in_virtual_time(main())


def test_a_shard_that_is_killed_goes_on_at_its_checkpoints(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)

        async def stuck(batch: Batch) -> None:
            if (batch.span.stream, batch.span.first) == (4, 12):
                await asyncio.Event().wait()

        victim = one.pod(1, api=MemoryDeliverer(stuck))
        others = [one.pod(0), one.pod(2)]
        await asyncio.sleep(5.5)
        assert all(pod.task.done() for pod in others)
        await victim.kill()
        again = one.pod(1)
        reports = await all_of(*others, again)

        assert [report.exit_code for report in reports] == [0, 0, 0]
        assert finished(again).whole
        assert delivered(again) == [(4, row) for row in range(12, 31)]
        assert set(delivered(victim, *others, again)) == set(everything(ROWS))
        assert reports[-1].destinations["api"].delivered == 9 + 31

    in_virtual_time(main())


@pytest.mark.slow
def test_a_second_process_on_an_index_gives_up_after_a_minute(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)
        holder = one.pod(1, api=Never())
        await asyncio.sleep(1)
        second = one.pod(1)
        report = await second.ended()
        assert isinstance(report.error, ShardHeld)
        assert report.exit_code == 75
        assert asyncio.get_running_loop().time() == pytest.approx(61, abs=1)
        holder.stop.set()
        assert (await holder.ended()).exit_code == 75

    in_virtual_time(main())


def test_a_stop_while_another_has_the_shard_ends_it_at_once(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)
        holder = one.pod(1, api=Never())
        await asyncio.sleep(1)
        second = one.pod(1)
        await asyncio.sleep(5)
        second.stop.set()
        report = await second.ended()
        assert (report.run, report.exit_code, report.error) == ("", 75, None)
        await holder.kill()

    in_virtual_time(main())


def test_a_stop_while_another_starts_the_query(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)
        starter = one.pod(0, source=Slow(ROWS))
        await asyncio.sleep(0.5)
        waiting = one.pod(1)
        await asyncio.sleep(5)
        waiting.stop.set()
        report = await waiting.ended()
        assert (report.result, report.exit_code) == (Result.INTERRUPTED, 75)
        again = one.pod(1)  # at once: its shard was given back
        await asyncio.sleep(0.1)
        assert "shard 1 is still another process's" not in activities(again)
        third = one.pod(2)
        assert [report.exit_code for report in await all_of(starter, again, third)] == [0, 0, 0]

    in_virtual_time(main())


def test_who_comes_back_to_a_shard_that_is_done_ends_at_once(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)
        first, second = one.pod(0), one.pod(1)
        await asyncio.sleep(5)
        again = one.pod(0)
        report = await again.ended()
        assert (report.result, report.exit_code, report.destinations) == (Result.COMPLETE, 0, {})
        assert not finished(again).whole
        assert again.api.delivered == []
        last = one.pod(2)
        await all_of(first, second, last)
        late = one.pod(2)
        assert (await late.ended()).exit_code == 0
        assert len(one.store("looker:1:a").runs()) == 1

    in_virtual_time(main())


def test_the_share_of_the_rate_follows_those_that_are_unfinished(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)
        slow = Never()
        last = one.pod(2, api=slow)
        quick = [one.pod(0), one.pod(1)]
        await all_of(*quick)
        await asyncio.sleep(2)
        slow.go.set()
        await last.ended()
        assert last.shares[0] == (2, 3)
        assert last.shares[-1] == (0, 1)
        assert quick[0].shares[0] == (0, 3)

    in_virtual_time(main())


def test_a_shard_whose_key_is_refused_leaves_the_others_alone(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)

        def refuse(_batch: Batch) -> None:
            raise CredentialsError("the key is refused")

        refused = one.pod(1, api=MemoryDeliverer(refuse))
        others = [one.pod(0), one.pod(2)]
        reports = await all_of(refused, *others)
        assert [report.exit_code for report in reports] == [77, 0, 0]
        (record,) = one.store("looker:1:a").runs()
        assert (record.result, record.error) == (Result.FAILED, "the key is refused")
        again = one.pod(1)
        assert (await again.ended()).exit_code == 0
        assert delivered(*others, again) == everything(ROWS)

    in_virtual_time(main())


def test_dead_letters_of_all_shards_count_against_what_is_tolerated(job: Jobs) -> None:
    async def main() -> None:
        def four(dead: int, _rows: int) -> bool:
            return dead <= 4

        one, bad = job(ROWS), MemorySource(ROWS, bad=frozenset({0, 1}))  # of each stream
        still = one.pod(0, api=Never(), tolerates=lambda dead, _rows: dead <= 3)
        quick = one.pod(1, source=bad, tolerates=four)
        assert (await quick.ended()).exit_code == 0  # four of its own
        report = await still.ended()  # it has none itself, and hears of them by its commits
        assert (report.exit_code, type(report.error)) == (65, TooManyRejected)
        last = one.pod(2, source=bad, tolerates=four)
        report = await last.ended()
        assert (report.exit_code, type(report.error)) == (65, TooManyRejected)
        assert last.api.delivered == []

    in_virtual_time(main())


def test_two_last_commits_at_once_do_not_pass_what_is_tolerated(
    job: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other's comes after this one's, and before either has closed anything."""

    async def main() -> None:
        one, api = job(ROWS, of=2), Never()
        pod = one.pod(0, api=api, tolerates=lambda dead, _rows: dead <= 3)
        await asyncio.sleep(1.5)
        other = one.store("pod-1:1:x")
        theirs = other.begin("users", "f", shard=Shard(index=1, of=2, job="job"))
        commit, mine = pod.store.commit, sum(ROWS[0::2])

        def both(run: OpenRun, checkpoints: Any, counts: dict[str, Counts]) -> Standing:
            standing = commit(run, checkpoints, counts)
            if counts["api"].read == mine:
                other.commit(theirs, {("api", 1): 9}, {"api": Counts(read=9, dead_lettered=9)})
            return standing

        monkeypatch.setattr(pod.store, "commit", both)
        api.go.set()
        report = await pod.ended()
        assert (report.exit_code, type(report.error)) == (65, TooManyRejected)
        assert report.destinations["api"].delivered == mine

    in_virtual_time(main())


# ------------------------------------------------------------------------------- expired readings


def expiring(times: int, stream: int) -> MemorySource:
    left = [ReadingExpired("the session has expired.")] * times

    def fault(at: int, row: int) -> None:
        if at == stream and row >= 5 and left:
            raise left.pop()

    return MemorySource(ROWS, fault=fault)


def test_one_begins_anew_and_the_others_follow(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)
        waiting = [Never(), Never()]
        pods = [
            one.pod(0, api=waiting[0]),
            one.pod(1, source=expiring(1, stream=4)),
            one.pod(2, api=waiting[1]),
        ]
        await asyncio.sleep(5)
        for api in waiting:
            api.go.set()
        reports = await all_of(*pods)

        assert [report.exit_code for report in reports] == [0, 0, 0]
        assert [dict(report.restarts) for report in reports] == [{"session_expired": 1}] * 3
        assert len({report.run for report in reports}) == 1
        assert set(delivered(*pods)) == set(everything(ROWS))
        assert len({key for pod in pods for key in pod.source.started}) == 1
        told = [event for pod in pods for event in pod.events if isinstance(event, Warned)]
        assert len(told) == 1  # by the one that met it
        assert all(any(isinstance(event, Restarted) for event in pod.events) for pod in pods)
        newest, before = one.store("looker:1:a").runs()
        assert newest.counts["api"].delivered == sum(ROWS)
        assert before.result is Result.FAILED

    in_virtual_time(main())


def test_a_stop_just_when_another_begins_anew_leaves_the_shard_at_once(job: Jobs) -> None:
    """It has written nothing of the new attempt, and is in it all the same: with its shard."""

    async def main() -> None:
        one = job(ROWS)
        stopped = one.pod(0, api=Never())
        anew = one.pod(1, source=expiring(1, stream=4))
        restart = anew.store.restart

        def and_stop(*given: Any, **named: Any) -> OpenRun:
            stopped.stop.set()
            stopped.api.go.set()
            return restart(*given, **named)

        anew.store.restart = and_stop
        report = await stopped.ended()
        assert (report.result, report.exit_code, report.error) == (Result.INTERRUPTED, 75, None)
        again = one.pod(0)
        third = one.pod(2)
        assert [each.exit_code for each in await all_of(again, anew, third)] == [0, 0, 0]
        assert not any("still another" in activity for activity in activities(again))
        assert set(delivered(stopped, again, anew, third)) == set(everything(ROWS))

    in_virtual_time(main())


def test_two_that_expire_at_once_begin_anew_once(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)
        pods = [one.pod(index, source=expiring(1, stream=3 + index)) for index in (0, 1)]
        await asyncio.sleep(0)
        pods.append(one.pod(2))
        reports = await all_of(*pods)
        assert [report.exit_code for report in reports] == [0, 0, 0]
        assert set(delivered(*pods)) == set(everything(ROWS))
        runs = one.store("looker:1:a").runs()
        assert runs[0].counts["api"].delivered == sum(ROWS)
        assert len(runs) in {2, 3}  # by who is first; the other may meet it before it hears

    in_virtual_time(main())


class Tired(MemorySource):
    """Its session expires as often as it is read, three seconds later."""

    async def read(self, reading: Reading, stream: int, first: int) -> AsyncGenerator[Frame, None]:
        await asyncio.sleep(3)
        raise ReadingExpired("the session has expired.")
        yield


def test_readings_that_others_began_anew_count_for_each(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)
        tired = one.pod(0, source=Tired(ROWS))
        readings: list[int] = []

        def third_time(stream: int, row: int) -> None:
            if (stream, row) == (1, 0):
                readings.append(row)
                if len(readings) == 3:
                    raise ReadingExpired("the session has expired.")

        other = one.pod(1, source=MemorySource(ROWS, fault=third_time), api=Never())
        report = await other.ended()
        assert (report.exit_code, dict(report.restarts)) == (75, {"session_expired": 2})
        assert (await tired.ended()).exit_code == 75
        assert len(one.store("looker:1:a").runs()) == 3

    in_virtual_time(main())


# ------------------------------------------------------------------------------- streams


def short(streams: dict[int, int]) -> MemorySource:
    """Says how many rows there are, and gives fewer of some streams at first."""

    class Short(MemorySource):
        async def start(self, window: Window, job_key: str) -> Reading:
            return replace(await super().start(window, job_key), rows=sum(ROWS))

    return Short([streams.get(number, rows) for number, rows in enumerate(ROWS)])


def test_streams_that_end_too_early_are_looked_at_again_by_the_last_shard(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)
        early = [one.pod(index, source=short({0: 7, 4: 11})) for index in (0, 1)]
        await all_of(*early)
        last = one.pod(2)
        report = await last.ended()
        assert report.exit_code == 0
        assert delivered(*early, last) == everything(ROWS)
        assert report.destinations["api"].delivered == sum(ROWS)
        (record,) = one.store("looker:1:a").runs()
        assert record.counts["api"].delivered == sum(ROWS)
        assert last.shares[-1] == (0, 1)

    in_virtual_time(main())


def test_rows_that_never_come_keep_the_window_open(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)
        pods = [one.pod(index, source=short({4: 11})) for index in range(3)]
        reports = await all_of(*pods)
        assert sorted(report.exit_code for report in reports) == [0, 0, 75]
        (text,) = [str(report.error) for report in reports if report.error]
        assert "the source has 87 rows, and 67 came" in text
        assert one.store("looker:1:a").window("users").sequence == 1

    in_virtual_time(main())


def test_shards_without_a_stream_end_at_once(job: Jobs) -> None:
    async def main() -> None:
        one = job([9])
        pods = [one.pod(index) for index in range(3)]
        reports = await all_of(*pods)
        assert [report.exit_code for report in reports] == [0, 0, 0]
        assert delivered(*pods) == everything([9])
        assert not [event for pod in pods for event in pod.events if isinstance(event, Warned)]

    in_virtual_time(main())


def test_idle_shards_are_warned_of_where_there_is_much_to_do(job: Jobs) -> None:
    class Many(MemorySource):
        async def start(self, window: Window, job_key: str) -> Reading:
            return replace(await super().start(window, job_key), rows=10**6, rows_exact=False)

    async def main() -> None:
        one = job([9])
        pods = [one.pod(index, source=Many([9])) for index in range(3)]
        await all_of(*pods)
        (told,) = [event for pod in pods for event in pod.events if isinstance(event, Warned)]
        assert "There are 1 streams for 3 shards" in told.text

    in_virtual_time(main())


# ------------------------------------------------------------------------------- beside others


def test_a_whole_run_and_shards_keep_out_of_each_others_way(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)
        api = Never()
        shard = one.pod(0, api=api)
        await asyncio.sleep(1)
        report = await one.alone().ended()
        assert (report.exit_code, type(report.error)) == (75, LeaseError)
        shard.stop.set()
        await shard.ended()
        whole = one.alone()
        assert (await whole.ended()).exit_code == 0
        # What it was to share is complete: there is nothing left to do for the Job.
        assert (await one.pod(0).ended()).exit_code == 0
        assert Shard(index=0, of=3, job="job") == shard.shard

    in_virtual_time(main())


def test_a_job_whose_run_was_given_up_asks_for_a_new_job(job: Jobs) -> None:
    async def main() -> None:
        one = job(ROWS)

        def down(_batch: Batch) -> None:
            raise DestinationError("down")

        assert (await one.pod(0, api=MemoryDeliverer(down)).ended()).exit_code == 75
        store = one.store("operator:1:a")
        store.set_window("users", 7)
        report = await one.pod(0).ended()
        assert (report.exit_code, type(report.error)) == (78, UnusableState)

    in_virtual_time(main())
