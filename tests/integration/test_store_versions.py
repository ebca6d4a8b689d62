"""The tables of every kind of store: made, brought up to date, or left alone."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from stores import Stores, complete

from pipeline.checkpoint import SqlStore, migrations, schema
from pipeline.errors import PipelineError, StateError, UnusableState
from pipeline.model import DeadLetter, Result


def version(store: SqlStore) -> list[int]:
    with store._read() as connection:
        return list(connection.scalars(sa.select(schema.META.c.version)))


def refused(stores: Stores, remedy: str) -> None:
    with pytest.raises(UnusableState, match=remedy) as caught:
        stores.open()
    assert caught.value.exit_code == 78
    assert str(caught.value).startswith("State ")


def test_a_new_state_has_the_newest_version(store: SqlStore) -> None:
    assert version(store) == [1 + len(migrations.STEPS)]


def test_a_state_of_a_newer_version_is_left_alone(stores: Stores) -> None:
    store = stores.open()
    run = complete(store)
    with store._write() as connection:
        connection.execute(sa.update(schema.META).values(version=99))

    refused(stores, r"written by a newer retl \(state version 99.*upgrade retl")

    assert version(store) == [99]
    assert [kept.id for kept in store.runs()] == [run.id]


def test_tables_of_another_program_are_left_alone(stores: Stores) -> None:
    store = stores.open()
    with store._write() as connection:
        schema.METADATA.drop_all(connection)
        connection.exec_driver_sql("CREATE TABLE meta (version TEXT)")

    refused(stores, "another program's tables: let `state` name")

    with store._read() as connection:
        assert migrations._tables(connection) == ["meta"]
        assert not migrations.has_tables(connection)


def test_older_states_take_the_steps_they_lack_once(store: SqlStore) -> None:
    taken: list[str] = []
    old = migrations.STEPS
    first, second = (lambda _: taken.append("first")), (lambda _: taken.append("second"))
    for steps in [(), (first,), (first,), (first, second), (first, second)]:
        with store._write() as connection:
            migrations.migrate(connection, "State x", (*old, *steps))

    assert taken == ["first", "second"]
    found, known = len(old) + 3, len(old) + 1
    said = rf"version {found}.*knows {known}"
    with pytest.raises(StateError, match=said), store._read() as connection:
        migrations.is_current(connection, "State x", old)


def test_a_step_that_fails_changes_nothing(store: SqlStore) -> None:
    def step(connection: sa.Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE runs ADD COLUMN more TEXT")
        raise StateError("no")

    with pytest.raises(StateError, match="no"), store._write() as connection:
        migrations.migrate(connection, "State x", (*migrations.STEPS, step))

    with store._read() as connection:
        inspector = sa.inspect(connection)
        columns = inspector.get_columns("runs", schema=inspector.default_schema_name)
        assert "more" not in {column["name"] for column in columns}
        assert migrations.is_current(connection, "State x")


def test_a_write_that_contradicts_the_tables_is_our_own_fault(store: SqlStore) -> None:
    row = sa.insert(schema.CHECKPOINTS).values(run="none", destination="a", stream=0, rows=1)
    with (
        pytest.raises(PipelineError, match=r"contradicts what is kept.*our own fault") as caught,
        store._write() as connection,
    ):
        connection.execute(row)

    assert type(caught.value) is PipelineError


def test_words_of_others_are_kept_whatever_is_in_them(store: SqlStore) -> None:
    run = store.begin("users", "f")
    odd = DeadLetter(
        stream=0, row=1, reason="rejected_400", message="a\0b \ud83d é", payload=b"\0\xff{}"
    )
    store.add_dead_letters(run, "a", [odd])
    store.finish(run, Result.FAILED, {}, "no\0 \udfff")

    (kept,) = store.dead_letters()
    assert (kept.letter.message, kept.letter.payload) == ("a\ufffdb ? é", b"\0\xff{}")
    assert store.runs()[0].error == "no\ufffd ?"
