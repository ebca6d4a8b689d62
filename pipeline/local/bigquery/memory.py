"""Tables made up in memory and serialized before anybody asks: they are served at wire speed.

A table is a block of ready messages, repeated as often as its row count needs; only the column
`id` differs between repetitions: it is the row's number, so a receiver can check every row.
All other values repeat every BLOCK_ROWS rows. Memory: one block per combination of compression
and columns in use, whatever the row count.
Knows neither gRPC nor SQL.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.local.bigquery.messages import serialize
from pipeline.local.bigquery.sessions import ReadRefusal

MESSAGE_ROWS = 4_096  # about 1 MB; above 8,192 the LZ4 frame of the ids has several blocks
BLOCK_ROWS = 64 * MESSAGE_ROWS
VARIANTS = 4  # encoded blocks kept: (compression, columns) in use at a time

FIRST_NAMES = ("Ada", "Benjamin", "Chloé", "Dmitri", "Eleanor", "Francisco", "Katharina", "Zoë")
LAST_NAMES = ("Bergström", "Castellanos", "Dąbrowski", "Fitzgerald", "Grünewald", "Lovelace")
PLANS = ("free-forever", "starter-monthly", "business-monthly", "enterprise-yearly-invoiced")
COUNTRIES = (
    "Bosnia and Herzegovina",
    "Germany",
    "Netherlands",
    "New Zealand",
    "United Kingdom of Great Britain and Northern Ireland",
    "United States of America",
)
CITIES = (
    "Buenos Aires",
    "Frankfurt am Main",
    "San Francisco",
    "Santiago de Compostela",
    "São Paulo",
)

DATETIME = {"ARROW:extension:name": "google:sqlType:datetime"}
USERS = pa.schema([
    pa.field("id", pa.int64()),
    pa.field("email", pa.string()),
    pa.field("first_name", pa.string()),
    pa.field("last_name", pa.string()),
    pa.field("phone", pa.string()),
    pa.field("plan", pa.string()),
    pa.field("country", pa.string()),
    pa.field("city", pa.string()),
    pa.field("created", pa.timestamp("us"), metadata=DATETIME),
    pa.field("last_seen", pa.timestamp("us", tz="UTC")),
    pa.field("score", pa.float64()),
    pa.field("active", pa.bool_()),
    pa.field("ltv", pa.decimal128(38, 9)),
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Template:
    """A serialized RecordBatch around the bytes of its ids; without a tail it has no ids."""

    head: memoryview
    tail: memoryview | None
    rows: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class MemoryMessages:
    """A `Messages` of a MemoryTable: its block in one encoding, repeated."""

    schema: pa.Schema
    starts: Sequence[int]
    nbytes: int
    block: Sequence[Template]
    last: Template
    stored_bytes: int = 0

    def pieces(self, index: int) -> tuple[bytes | memoryview, ...]:
        """Message `index`: ready bytes around fresh ids."""
        final = index == len(self.starts) - 2
        template = self.last if final else self.block[index % len(self.block)]
        if template.tail is None:
            return (template.head,)
        first = self.starts[index]
        ids = np.arange(first, first + template.rows, dtype="<i8").tobytes()
        return template.head, ids, template.tail

    def close(self) -> None:
        """Nothing to give back: the block is the table's."""


class MemoryTable:
    """A table of `rows` rows numbered from 0 in `id`. Thread-safe.

    streams: how many the server chooses when the client leaves it the choice; 0: by size.
    """

    def __init__(self, block: pa.RecordBatch, rows: int, *, streams: int = 0) -> None:
        """block: rows with an int64 column `id`, whose values must look random.

        Compression leaves a random column's bytes as they are, in one place and in any
        repetition of the same length, so that other ids can be put there afterwards.
        """
        self.schema: pa.Schema = block.schema
        self.rows = rows
        self.streams = streams
        self._block = block
        self._variants: dict[tuple[str | None, tuple[str, ...]], MemoryMessages] = {}
        self._lock = threading.Lock()
        self.messages()

    @classmethod
    def users(cls, rows: int, *, seed: int = 0, streams: int = 0) -> MemoryTable:
        """People with 13 columns; as an identify call a row is about 420 bytes of JSON."""
        size = max(1, min(rows, BLOCK_ROWS))
        return cls(_users(size, np.random.default_rng(seed)), rows, streams=streams)

    def messages(
        self, *, codec: str | None = None, selected_fields: Sequence[str] = ()
    ) -> MemoryMessages:
        """All rows, serialized with that compression and those columns (none: all of them).

        Encodes a block at the first use of a combination. Raises ReadRefusal for a column
        that is not there.
        """
        for name in selected_fields:
            if name not in self.schema.names:
                raise ReadRefusal("INVALID_ARGUMENT", f"The following selected fields do not exist "
                                  f"in the table schema: {name}")  # fmt: skip
        # The service sends columns in the table's order, whatever the order asked for.
        names = tuple(n for n in self.schema.names if not selected_fields or n in selected_fields)
        with self._lock:
            found = self._variants.pop((codec, names), None) or self._encode(codec, names)
            self._variants[codec, names] = found  # the most recently used is the last
            if len(self._variants) > VARIANTS:
                del self._variants[next(iter(self._variants))]
        return found

    def table(self, *, first: int = 0, rows: int | None = None) -> pa.Table:
        """Rows `first` to `first + rows - 1` (to the end: None) as Arrow, all columns."""
        stop = self.rows if rows is None else min(self.rows, first + rows)
        batches, messages, at = [], self.messages(), first
        while at < stop:
            index = at // MESSAGE_ROWS
            buffer = pa.py_buffer(b"".join(messages.pieces(index)))
            batch = pa.ipc.read_record_batch(buffer, self.schema)
            skip = at - messages.starts[index]
            batches.append(batch.slice(skip, stop - at))
            at += batches[-1].num_rows
        return pa.Table.from_batches(batches, self.schema)

    def _encode(self, codec: str | None, names: tuple[str, ...]) -> MemoryMessages:
        block = self._block.select(list(names))
        full = [
            _template(block.slice(at, MESSAGE_ROWS), codec)
            for at in range(0, block.num_rows, MESSAGE_ROWS)
        ]
        starts = [*range(0, self.rows, MESSAGE_ROWS), self.rows]
        final = (len(starts) - 2) * MESSAGE_ROWS
        last = full[0]
        if self.rows:
            last = _template(block.slice(final % block.num_rows, self.rows - final), codec)
        sizes = [full[index % len(full)].nbytes for index in range(len(starts) - 2)]
        return MemoryMessages(
            schema=block.schema,
            starts=starts,
            nbytes=sum(sizes) + (last.nbytes if self.rows else 0),
            block=full,
            last=last,
        )


def _template(batch: pa.RecordBatch, codec: str | None) -> Template:
    message = memoryview(serialize(batch, codec))
    if "id" not in batch.schema.names:
        return Template(message, None, batch.num_rows, batch.nbytes)
    ids = batch.column("id").to_numpy().tobytes()
    at = message.obj.find(ids)  # type: ignore[attr-defined]  # it is the bytes just made
    if at < 0:
        raise ValueError("the ids of the block are not to be found in its serialized form")
    return Template(message[:at], message[at + len(ids) :], batch.num_rows, batch.nbytes)


def _users(rows: int, random: np.random.Generator) -> pa.RecordBatch:
    first, last = _pick(FIRST_NAMES, rows, random), _pick(LAST_NAMES, rows, random)
    number = pa.array(random.integers(10**6, 10**7, rows)).cast(pa.string())
    micro = 10**6
    created = random.integers(1_420_070_400 * micro, 1_735_689_600 * micro, rows)  # 2015-2024
    seen = created + random.integers(0, 31_536_000 * micro, rows)
    return pa.record_batch(
        [
            pa.array(random.integers(0, 2**63 - 1, rows)),
            pc.binary_join_element_wise(
                pc.binary_join_element_wise(pc.utf8_lower(first), pc.utf8_lower(last), number, "."),
                "mail.customers.example.com",
                "@",
            ),
            first,
            last,
            pc.binary_join_element_wise("+1", "555", number, "-"),
            _pick(PLANS, rows, random),
            _pick(COUNTRIES, rows, random),
            _pick(CITIES, rows, random),
            pa.array(created).cast(pa.timestamp("us")),
            pa.array(seen).cast(pa.timestamp("us", tz="UTC")),
            pa.array(random.random(rows) * 100),
            pa.array(random.random(rows) < 0.7),
            _numeric(random.integers(0, 10**7, rows) * 10**7),  # cents
        ],
        schema=USERS,
    )


def _pick(pool: Sequence[str], rows: int, random: np.random.Generator) -> pa.Array:
    return pa.array(pool).take(pa.array(random.integers(0, len(pool), rows)))


def _numeric(billionths: npt.NDArray[np.int64]) -> pa.Array:
    """Non-negative int64 counts of 1e-9 as NUMERIC."""
    halves = np.zeros((len(billionths), 2), dtype="<i8")
    halves[:, 0] = billionths
    buffers = [None, pa.py_buffer(halves.tobytes())]
    return pa.Array.from_buffers(pa.decimal128(38, 9), len(billionths), buffers)
