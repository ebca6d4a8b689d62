"""Our Source as a run would have it, over the replaying server: wired from a configuration."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline import Config, load_config
from pipeline.model import Reading
from pipeline.ports import Source
from pipeline.wiring.sources import open_source

SYNC = "users"
_CONFIG = """
version: 1
sources:
  canned: {{type: bigquery, project: local, storage_endpoint: "http://{target}"}}
destinations:
  out: {{type: file, path: out.ndjson}}
syncs:
  users:
    source: canned
    call: identify
    destinations: [out]
    columns: {{id: userId}}
    query: SELECT 1
"""


@dataclass(frozen=True, slots=True)
class Canned:
    """What the server has of a shape. nbytes: of one message; body: its RecordBatch."""

    name: str
    schema: pa.Schema
    body: bytes
    rows: int
    nbytes: int
    columns: int

    def stream(self, messages: int, number: int = 0) -> str:
        """The name of a stream of so many messages."""
        return f"{self.name}/{messages}/{number}"

    def reading(self, streams: int, messages: int) -> Reading:
        """What a run would have got, had it asked for a session of so many streams."""
        return Reading(
            streams=tuple(self.stream(messages, number) for number in range(streams)),
            schema=self.schema.serialize().to_pybytes(),
            query_started=0,
            rows=streams * messages * self.rows,
        )


@dataclass(frozen=True, slots=True)
class Served:
    """Where the server listens, as host:port, what it has, and its process."""

    target: str
    shapes: Mapping[str, Canned]
    process: int


@contextmanager
def serving(message_bytes: int) -> Iterator[Served]:
    """The server, for the length of the block."""
    script = Path(__file__).with_name("_read_server.py")
    command = [sys.executable, str(script), "--message-bytes", str(message_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - asked for above
            said = json.loads(process.stdout.readline())
            shapes = {
                name: Canned(
                    name,
                    pa.ipc.read_schema(pa.py_buffer(b64decode(shape["schema"]))),
                    b64decode(shape["body"]),
                    shape["rows"],
                    shape["bytes"],
                    shape["columns"],
                )
                for name, shape in said["shapes"].items()
            }
            yield Served(said["target"], shapes, process.pid)
        finally:
            process.terminate()


def configured(target: str) -> Config:
    """The configuration of a sync that reads from the server."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "retl.yml")
        path.write_text(_CONFIG.format(target=target), encoding="utf-8")
        return load_config(path)


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Source]:
    """The sync's Source."""
    async with open_source(config, SYNC, config.syncs[SYNC]) as source:
        yield source
