"""Postgres' own: URLs, who is let in, what its errors become, its clock, its settings."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa
from postgres import KEYED, PASSWORD, Postgres
from stores import READING, complete, letter

from pipeline.checkpoint import SqlStore, schema
from pipeline.checkpoint.places import is_made
from pipeline.checkpoint.postgres import PostgresServer
from pipeline.errors import (
    ConfigError,
    CredentialsError,
    LeaseError,
    PipelineError,
    StateError,
    UnusableState,
)

FORBIDDEN = ("hunter2", PASSWORD, "ada@example.com", "INSERT INTO", " FROM ")


def open_store(url: str, **more: Any) -> SqlStore:
    # Without patience: what is lost is told at once.
    return SqlStore(url, **{"holder": "here:1:a", "lease_seconds": 0, **more})


def refused(url: str, kind: type[PipelineError], remedy: str) -> str:
    """Opening says so, and neither password nor statement, wherever one looks."""
    with pytest.raises(kind, match=remedy) as caught:
        open_store(url)
    assert type(caught.value).exit_code == kind.exit_code
    chain: BaseException | None = caught.value
    while chain is not None:
        assert not [word for word in FORBIDDEN if word in f"{chain!r} {vars(chain)}"]
        chain = chain.__cause__
    return str(caught.value)


# ------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://u:hunter2@h:5433/d?sslmode=require", "postgresql://u@h:5433/d"),
        ("postgres://h/d?password=hunter2&user=u", "postgresql://u@h/d"),
        ("postgresql://u:hunter2@a:1,b:2/d", "postgresql://u@a,b/d"),
        ("postgresql://u@/d?host=/run/postgresql", "postgresql://u@/d"),
        ("postgresql:///d", "postgresql:///d"),
    ],
)
def test_its_name_is_the_url_without_password_and_options(url: str, name: str) -> None:
    server = PostgresServer(url, busy_seconds=1, patience=0)
    assert server.name == f"State {name}"
    assert "hunter2" not in f"{server.engine!r} {server.engine.url!r} {server.engine.pool!r}"


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter2%zz@h/d", "postgresql://u:hunter2@h/d?hunter2=x"]
)
def test_what_is_no_url_of_libpq_is_a_configuration_fault(url: str) -> None:
    refused(url, ConfigError, "state: this is no URL that libpq takes")


@pytest.mark.parametrize("more", ["&sslmode=hunter2", "&port=99999", "&options=-chunter2%3D1"])
def test_options_that_libpq_does_not_take(postgres: Postgres, more: str) -> None:
    url = postgres.url(postgres.schema(), more=more)
    refused(url, ConfigError, "an option that libpq does not take")


def test_without_the_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    refused("postgresql://u:hunter2@h/d", ConfigError, r"bigquery-reverse-etl\[postgres\]")


# ------------------------------------------------------------------------------- access


def test_a_password_with_special_characters(postgres: Postgres) -> None:
    name = postgres.schema()
    postgres.run(f"GRANT ALL ON SCHEMA {name} TO {KEYED}")
    url = postgres.url(name, user=KEYED, password=PASSWORD)
    with closing(open_store(url)) as store:
        complete(store)
    assert is_made(url)


def test_a_wrong_password_or_user_is_a_matter_of_credentials(postgres: Postgres) -> None:
    name = postgres.schema()
    for url in (
        postgres.url(name, user=KEYED, password="hunter2"),
        postgres.url(name, user=KEYED),
        postgres.url(name, user="nobody", password="hunter2"),
    ):
        said = refused(url, CredentialsError, "refuses this user: check user and password")
        assert said.startswith("State postgresql://")
        with pytest.raises(CredentialsError):
            is_made(url)
    assert CredentialsError.exit_code == 77


def test_an_unknown_database_has_to_be_made(postgres: Postgres) -> None:
    url = postgres.url(postgres.schema(), database="nowhere", password="hunter2")
    refused(url, UnusableState, "postgresql://postgres@/nowhere has no such database: create it")


def test_an_unknown_schema_has_to_be_made(postgres: Postgres) -> None:
    refused(postgres.url("nowhere"), UnusableState, "CREATE SCHEMA, or correct search_path")


def test_a_server_that_is_not_there_may_come_back() -> None:
    url = "postgresql://u:hunter2@127.0.0.1:1/d"
    said = refused(url, StateError, "can't be reached: nothing listens there")
    assert said.startswith("State postgresql://u@127.0.0.1:1/d ")
    assert StateError.exit_code == 75
    refused("postgresql://u:hunter2@nosuch.invalid/d", StateError, "name can't be resolved")


def test_who_may_not_create_tables_is_told_at_once(postgres: Postgres) -> None:
    name = postgres.schema()
    url = postgres.url(name, user=postgres.role(name))
    assert not is_made(url)
    refused(url, UnusableState, "GRANT it CREATE on the schema")


def test_who_may_not_use_all_of_the_tables_is_told_at_once(postgres: Postgres) -> None:
    name = postgres.schema()
    open_store(postgres.url(name)).close()
    tables = f"ALL TABLES IN SCHEMA {name}"
    sequences = f"USAGE ON ALL SEQUENCES IN SCHEMA {name}"
    some = postgres.role(name, f"SELECT, INSERT, UPDATE ON {tables}", sequences)
    unnumbered = postgres.role(name, f"SELECT, INSERT, UPDATE, DELETE ON {tables}")
    enough = postgres.role(name, f"SELECT, INSERT, UPDATE, DELETE ON {tables}", sequences)

    refused(postgres.url(name, user=some), UnusableState, "use checkpoints, dead_letters.* runs")
    said = refused(postgres.url(name, user=unnumbered), UnusableState, "GRANT SELECT, INSERT")
    assert "dead_letters_id_seq, reports_id_seq, runs_number_seq:" in said
    with closing(open_store(postgres.url(name, user=enough))) as store:
        complete(store)


def test_a_server_that_takes_no_writes_is_told_at_once(postgres: Postgres) -> None:
    name = postgres.schema()
    role = postgres.role(name, f"ALL ON SCHEMA {name}")
    postgres.run(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    url = postgres.url(name, user=role)
    refused(url, UnusableState, "Let `state` name the primary")  # before there are tables
    open_store(postgres.url(name)).close()
    postgres.run(f"GRANT ALL ON ALL TABLES IN SCHEMA {name} TO {role}")

    refused(url, UnusableState, "Let `state` name the primary")
    refused(f"{url}&target_session_attrs=read-write", UnusableState, "name the primary")


def test_tables_of_a_schema_that_is_searched_later_are_none_of_ours(postgres: Postgres) -> None:
    mine, other = postgres.schema(), postgres.schema()
    postgres.run(f"CREATE TABLE {other}.meta (version TEXT)")
    both = postgres.url(f"{mine},{other}")
    assert not is_made(both)

    open_store(both).close()

    assert is_made(both)
    assert is_made(postgres.url(mine))


# ------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("code", "kind", "remedy"),
    [
        ("53100", StateError, "disk is full. Free space"),
        ("53200", StateError, "see the server's log"),
        ("58030", StateError, "see the server's log"),
        ("57014", StateError, "took too long over a statement"),
        ("53300", StateError, "max_connections"),
        ("57P01", StateError, "closed the connection"),
        ("57P03", StateError, "starting or shutting down"),
        ("08006", StateError, "closed the connection"),
        ("40001", StateError, "undid a transaction"),
        ("40P01", StateError, "undid a transaction"),
        ("25006", UnusableState, "takes no writes"),
        ("28000", CredentialsError, "refuses this user"),
        ("42501", UnusableState, "GRANT"),
        ("42P01", UnusableState, "lacks tables"),
        ("XX001", UnusableState, "restore it from a backup"),
        ("0A000", UnusableState, r"can't be used \(SQLSTATE 0A000\)"),
        ("23505", PipelineError, "our own fault"),
    ],
)
def test_what_a_server_says_in_the_middle_of_a_run(
    postgres: Postgres, code: str, kind: type[PipelineError], remedy: str
) -> None:
    name = postgres.schema()
    with closing(open_store(postgres.url(name))) as store:
        run = store.begin("users", "f")
        store.commit(run, {("a", 0): 3}, {})
        postgres.run(
            f"CREATE FUNCTION {name}.fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"RAISE EXCEPTION 'ada@example.com' USING ERRCODE = '{code}', "
            "DETAIL = 'Failing row contains (ada@example.com).'; END $$"
        )
        postgres.run(
            f"CREATE TRIGGER fails BEFORE INSERT ON {name}.dead_letters "
            f"EXECUTE FUNCTION {name}.fails()"
        )
        with pytest.raises(kind, match=remedy) as caught:
            store.add_dead_letters(run, "a", [letter(1)])

        assert type(caught.value).exit_code == kind.exit_code
        assert not isinstance(caught.value, StateError) or issubclass(kind, StateError)
        assert caught.value.__cause__ is None
        assert "ada@" not in str(caught.value)
        postgres.run(f"DROP FUNCTION {name}.fails() CASCADE")
        store.add_dead_letters(run, "a", [letter(1)])
        assert len(store.dead_letters()) == 1


def test_a_value_that_can_t_be_kept_is_our_own_fault(postgres: Postgres) -> None:
    with closing(open_store(postgres.fresh())) as store, pytest.raises(PipelineError) as caught:
        store.begin("us\0ers", "f")
    assert type(caught.value) is PipelineError
    assert "our own fault" in str(caught.value)


# ------------------------------------------------------------------------------- locks


def test_locked_by_another_writer(postgres: Postgres) -> None:
    url = postgres.fresh()
    with closing(open_store(url, busy_seconds=0.2)) as store, closing(open_store(url)) as other:
        run = store.begin("users", "f")
        with other._write() as holding:
            holding.execute(sa.select(schema.LEASES).with_for_update())
            with pytest.raises(StateError, match=r"another writer for longer than 0\.2 s"):
                store.commit(run, {("a", 0): 1}, {})
        store.commit(run, {("a", 0): 1}, {})


def test_who_stops_in_the_middle_of_a_write_locks_nobody_out(postgres: Postgres) -> None:
    url = postgres.fresh()
    with (
        closing(open_store(url, busy_seconds=1)) as stopped,
        closing(open_store(url, holder="there:1:b", busy_seconds=30)) as other,
    ):
        stopped.begin("users", "f")

        def write() -> None:
            with stopped._write() as writing:
                writing.execute(sa.select(schema.LEASES).with_for_update())
                other.begin("users", "f")  # waits until the server ends the other's transaction
                writing.execute(sa.delete(schema.LEASES))

        with pytest.raises(StateError, match="closed the connection"):
            write()


def test_syncs_do_not_wait_for_each_other(postgres: Postgres) -> None:
    url = postgres.fresh()
    with closing(open_store(url, busy_seconds=1)) as store, closing(open_store(url)) as other:
        users, events = store.begin("users", "f"), other.begin("events", "f")
        with store._write_of(users):
            other.attach(events, READING)
            other.add_dead_letters(events, "a", [letter(1)])
            other.commit(events, {("a", 0): 1}, {})


def test_a_read_sees_one_moment(postgres: Postgres) -> None:
    with closing(open_store(postgres.fresh())) as store:
        run = store.begin("users", "f")
        with store._read() as reading:
            before = reading.execute(sa.select(schema.RUNS)).all()
            store.attach(run, READING)
            store.add_dead_letters(run, "a", [letter(1)])

            assert reading.execute(sa.select(schema.RUNS)).all() == before
            assert reading.execute(sa.select(schema.DEAD_LETTERS)).all() == []


def test_several_threads_that_open_a_new_state_at_once(postgres: Postgres) -> None:
    url, errors = postgres.fresh(), list[BaseException]()

    def opens() -> None:
        try:
            open_store(url).close()
        except PipelineError as error:
            errors.append(error)

    threads = [threading.Thread(target=opens) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert errors == []


# ------------------------------------------------------------------------------- clock, settings


@pytest.mark.parametrize("off", [-86_400.0, 86_400.0])
def test_pods_whose_clocks_differ_agree_on_a_lease(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    url = postgres.fresh()
    with (
        closing(open_store(url, lease_seconds=60)) as store,
        closing(open_store(url, holder="there:1:b", lease_seconds=60)) as other,
    ):
        store.begin("users", "f")
        true = time.time()
        monkeypatch.setattr(time, "time", lambda: true + off)

        with pytest.raises(LeaseError, match=r"or (59|60) s if it is gone"):
            other.begin("users", "f")
        assert other.runs()[0].started == pytest.approx(true, abs=30)


def test_settings_of_every_transaction(postgres: Postgres) -> None:
    with closing(open_store(postgres.fresh(), busy_seconds=3)) as store:
        for transaction, isolation, read_only in (
            (store._write, "read committed", "off"),
            (store._read, "repeatable read", "on"),
            (store._write, "read committed", "off"),
        ):
            with transaction() as connection:
                found = {
                    setting: connection.exec_driver_sql(f"SHOW {setting}").scalar_one()
                    for setting in (
                        "lock_timeout",
                        "idle_in_transaction_session_timeout",
                        "statement_timeout",
                        "transaction_isolation",
                        "transaction_read_only",
                        "application_name",
                    )
                }
            assert found == {
                "lock_timeout": "3s",
                "idle_in_transaction_session_timeout": "3s",
                "statement_timeout": "63s",
                "transaction_isolation": isolation,
                "transaction_read_only": read_only,
                "application_name": "retl",
            }
        with store._database.engine.connect() as connection:  # nothing of it stays
            assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "0"
