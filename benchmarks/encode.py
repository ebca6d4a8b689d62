"""RecordBatches to JSON payloads, one core, against the other ways to write the same bytes.

    python benchmarks/encode.py                       five shapes
    python benchmarks/encode.py --shapes users wide   some of them

Everything takes turns within one process pinned to one core, so that a noisy machine slows all of
it alike: a figure is the median of rows per CPU-second, a ratio the median over the turns.

- The encoder starts from BigQuery's flat columns and is given the batches one by one.
- `to_pylist + orjson` starts there too, and is let off the nesting and the ids.
- `orjson` starts from ready dicts, read back from the encoder's own payloads.
- polars and DuckDB start from all batches as one table that is nested already, ids as text, and
  write times, decimals and JSON columns in their own way; `ready` has those converted as well.
- Ids off: the encoder ends each payload where the id would begin. There is no such switch in the
  product; the benchmark overrides the one method that adds it. Nobody else makes ids.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
os.environ["POLARS_MAX_THREADS"] = "1"  # read when polars is imported

# ruff: noqa: E402 - the core comes first
import duckdb
import orjson
import polars as pl
import pyarrow as pa
from _harness import report
from _shapes import Shape, json_types, nested, shapes
from _stages import memory, shares

from pipeline.encode.encoder import CallEncoder
from pipeline.encode.pieces import Pieces
from pipeline.model import Payloads, Span, Window

OFF, ON, PYLIST, DICTS = "ids off", "ids on", "to_pylist + orjson", "orjson over dicts"
LIST, NDJSON = "orjson over a list", "polars write_ndjson"
POLARS, DUCKDB = "polars json_encode", "duckdb to_json"
POLARS_READY, DUCKDB_READY = "polars json_encode, ready", "duckdb to_json, ready"

_AS_JSON = pl.struct(pl.all()).struct.json_encode()

Turn = Callable[[], int]
"""One turn of a contender; returns how many rows it wrote."""


class WithoutIds(CallEncoder):
    """The encoder, less the message ids."""

    def _stamped(
        self, pieces: Pieces, fields: dict[str, pa.StringArray], rows: int
    ) -> pa.StringArray:
        del fields
        pieces.literal(self._end)
        return pieces.join(rows)


def encoder(kind: type[CallEncoder], shape: Shape) -> CallEncoder:
    """A sync's encoder for the shape."""
    return kind(
        sync=shape.name,
        call=shape.call,
        window=Window(start=1_790_000_000, sequence=1),
        schema=shape.table.schema,
        rules=shape.rules,
        separator=b",",
        payload_bytes=32_000,
    )


def encode_all(encode: CallEncoder, batches: list[pa.RecordBatch]) -> list[Payloads]:
    """The payloads of each batch."""
    return [encode.encode(batch, Span(stream=0, first=0, rows=batch.num_rows)) for batch in batches]


def contenders(shape: Shape, batches: list[pa.RecordBatch]) -> dict[str, Turn]:
    """Everybody who takes turns. All but `to_pylist` write every batch."""
    rows: int = sum(batch.num_rows for batch in batches)
    off, on = encoder(WithoutIds, shape), encoder(CallEncoder, shape)
    dicts = [orjson.loads(body) for body in _bodies(encode_all(off, batches))]
    typed = nested(shape)
    ready = pa.table(
        {name: json_types(typed[name].combine_chunks()) for name in typed.schema.names}
    )
    frame, ready_frame = pl.DataFrame(typed), pl.DataFrame(ready)
    connection = duckdb.connect(config={"threads": 1})
    connection.register("typed", typed)
    connection.register("ready", ready)

    def pylist() -> int:
        for row in batches[0].to_pylist():
            orjson.dumps(row, default=_plain)
        return shape.rows

    def turn(work: Callable[[], object]) -> Turn:
        def take() -> int:
            work()
            return rows

        return take

    return {
        OFF: turn(lambda: encode_all(off, batches)),
        ON: turn(lambda: encode_all(on, batches)),
        PYLIST: pylist,
        DICTS: turn(lambda: [orjson.dumps(row) for row in dicts]),
        LIST: turn(lambda: orjson.dumps(dicts)),
        NDJSON: turn(lambda: frame.write_ndjson(io.BytesIO())),
        POLARS: turn(lambda: frame.select(_AS_JSON)),
        DUCKDB: turn(lambda: connection.sql("SELECT to_json(t) FROM typed t").to_arrow_table()),
        POLARS_READY: turn(lambda: ready_frame.select(_AS_JSON)),
        DUCKDB_READY: turn(
            lambda: connection.sql("SELECT to_json(t) FROM ready t").to_arrow_table()
        ),
    }


def _bodies(encoded: list[Payloads]) -> list[bytes]:
    """Every payload, each on its own."""
    return [
        bytes(part.data[start : stop - 1])
        for part in encoded
        for start, stop in zip(part.offsets[:-1].tolist(), part.offsets[1:].tolist(), strict=True)
    ]


def _plain(value: Any) -> Any:
    """What orjson can't write by itself: bytes and decimals."""
    return b64encode(value).decode() if isinstance(value, bytes) else float(value)


def measure(shape: Shape, rounds: int) -> dict[str, Any]:
    """Rounds of turns, then the stages and the memory of the encoder with ids."""
    batches = shape.batches
    turns = contenders(shape, batches)
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds + 1):
        for name, turn in turns.items():
            start = time.process_time()
            rows = turn()
            rates[name].append(rows / (time.process_time() - start))
    rates = {name: taken[1:] for name, taken in rates.items()}  # the first round warms up
    on = encoder(CallEncoder, shape)
    encoded = encode_all(on, batches)
    size = sum(len(part.data) for part in encoded) / sum(len(part) for part in encoded)
    return {
        "rows_per_batch": shape.rows,
        "payload_bytes": size,
        "rows_per_cpu_second": {name: statistics.median(taken) for name, taken in rates.items()},
        "ids_off_to": _ratios(rates, OFF),
        "ids_on_to": _ratios(rates, ON),
        "stages": shares(on, shape.table.schema, lambda: encode_all(on, batches), 2 * rounds),
        "memory": memory(batches[0], lambda: encode_all(on, batches[:1])[0]),
    }


def _ratios(rates: dict[str, list[float]], ours: str) -> dict[str, float]:
    return {
        name: statistics.median(a / b for a, b in zip(rates[ours], taken, strict=True))
        for name, taken in rates.items()
        if name not in {OFF, ON}
    }


def show(name: str, figures: dict[str, Any]) -> None:
    """A table of one shape."""
    print(
        f"\n{name}: {figures['rows_per_batch']:,} rows a batch, "
        f"{figures['payload_bytes']:,.0f} bytes a payload with its id"
    )
    print(f"{'':24}{'rows per CPU-s':>16}{'MB/s':>8}{'ids off':>10}{'ids on':>10}")
    for contender, rate in figures["rows_per_cpu_second"].items():
        ratios = [figures[key].get(contender) for key in ("ids_off_to", "ids_on_to")]
        shown = "".join(f"{ratio:>9.2f}x" if ratio else f"{'':10}" for ratio in ratios)
        megabytes = rate * figures["payload_bytes"] / 1e6
        print(f"{contender:24}{rate:>16,.0f}{megabytes:>8,.0f}{shown}")
    stages = (f"{stage} {share:.0%}" for stage, share in figures["stages"].items())
    print("stages:", ", ".join(stages))
    print(
        "peak memory, times the batch:",
        ", ".join(
            f"{part} {value:,.2f}"
            for part, value in figures["memory"].items()
            if part != "batch_bytes"
        ),
    )


def goals(figures: dict[str, Any]) -> dict[str, tuple[float, str, float]]:
    """What is promised of the shapes that were measured; polars and DuckDB make no ids."""
    wanted = {}
    for name, shape in figures.items():
        off, on = shape["ids_off_to"], shape["ids_on_to"]
        if name == "users":
            wanted["users, ids off, to orjson over dicts"] = (off[DICTS], ">=", 1.2)
            wanted["users, ids on, to orjson over dicts"] = (on[DICTS], ">=", 1.0)
            wanted["users, ids on, to to_pylist + orjson"] = (on[PYLIST], ">=", 25.0)
        else:
            wanted[f"{name}, ids off, to DuckDB"] = (off[DUCKDB], ">=", 1.0)
            wanted[f"{name}, ids off, to polars"] = (min(off[POLARS], off[NDJSON]), ">=", 1.0)
    return wanted


def main() -> None:
    """Parse, measure each shape, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", nargs="*", help="which ones; all unless said")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    figures = {}
    for shape in shapes():
        if not arguments.shapes or shape.name in arguments.shapes:
            figures[shape.name] = measure(shape, arguments.rounds)
            show(shape.name, figures[shape.name])
    print()
    report(
        "encode",
        figures=figures,
        ratios={
            f"{name}, ids {ids}, to {other}": ratio
            for name, shape in figures.items()
            for ids in ("off", "on")
            for other, ratio in shape[f"ids_{ids}_to"].items()
        },
        goals=goals(figures),
    )


if __name__ == "__main__":
    main()
