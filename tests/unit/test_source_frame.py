import numpy as np
import pyarrow as pa
import pytest
from google.cloud.bigquery_storage_v1 import types
from google.protobuf.message import DecodeError

from pipeline.errors import BrokenFrame
from pipeline.local.bigquery.messages import serialize
from pipeline.source.frame import Decoder, cut

Response = types.ReadRowsResponse.pb()
BATCH = pa.record_batch({"n": pa.array(range(20_000)), "t": pa.array(["text"] * 20_000)})


def message(batch: pa.RecordBatch = BATCH, codec: str | None = None) -> bytes:
    response = Response(row_count=batch.num_rows)
    response.arrow_record_batch.serialized_record_batch = serialize(batch, codec)
    response.arrow_record_batch.row_count = batch.num_rows
    response.stats.progress.at_response_start = 0.25
    response.arrow_schema.serialized_schema = batch.schema.serialize().to_pybytes()
    return response.SerializeToString()


@pytest.mark.parametrize("rows", [1, 20_000])
@pytest.mark.parametrize("codec", [None, "lz4"])
def test_a_message_is_cut_as_protobuf_parses_it(rows: int, codec: str | None) -> None:
    data = message(BATCH.slice(0, rows), codec)
    serialized, rest = cut(data)
    whole = Response.FromString(data)
    assert serialized == whole.arrow_record_batch.serialized_record_batch
    assert rest.row_count == rows
    assert rest.stats == whole.stats
    assert rest.arrow_schema == whole.arrow_schema
    assert Decoder(BATCH.schema, "here").decode(serialized, rows).equals(BATCH.slice(0, rows))


@pytest.mark.parametrize("pad", range(8))
def test_columns_are_aligned_wherever_the_rows_lie_in_the_message(pad: int) -> None:
    serialized = b"x" * pad + serialize(BATCH, None)
    batch = Decoder(BATCH.schema, "here").decode(memoryview(serialized)[pad:], BATCH.num_rows)
    assert batch.equals(BATCH)
    assert batch.column("n").buffers()[1].address % np.dtype("i8").alignment == 0
    assert batch.column("t").buffers()[1].address % np.dtype("i4").alignment == 0


def test_large_columns_are_not_copied_where_they_are_aligned() -> None:
    serialized = serialize(BATCH, None)
    batch = Decoder(BATCH.schema, "here").decode(serialized, BATCH.num_rows)
    address = pa.py_buffer(serialized).address
    assert address < batch.column("n").buffers()[1].address < address + len(serialized)


def test_no_truncated_message_passes() -> None:
    data = message()
    for length in [*range(1, 40), len(data) // 2, *range(len(data) - 400, len(data))]:
        try:
            serialized, rest = cut(data[:length])
        except DecodeError:
            with pytest.raises(DecodeError):
                Response.FromString(data[:length])
            continue
        whole = Response.FromString(data[:length])
        assert (serialized, rest.row_count) == (
            whole.arrow_record_batch.serialized_record_batch,
            whole.row_count,
        )


@pytest.mark.parametrize("junk", [b"\xff" * 200_000, b"\x0b" + bytes(200_000), b"\x80" * 200_000])
def test_what_is_no_message_is_refused(junk: bytes) -> None:
    with pytest.raises(DecodeError):
        cut(junk)


def test_a_decoder_goes_on_after_a_broken_message() -> None:
    decoder, serialized = Decoder(BATCH.schema, "here"), serialize(BATCH, "lz4")
    for broken in (
        b"",
        b"\xff\xff\xff\xff\0\0\0\0",
        serialized[:-100],
        serialized[:9],
        b"junk" * 9,
    ):
        with pytest.raises(BrokenFrame, match="here"):
            decoder.decode(broken, BATCH.num_rows)
        assert decoder.decode(serialized, BATCH.num_rows).equals(BATCH)
    with pytest.raises(BrokenFrame, match="says 3 rows, holds 20000"):
        decoder.decode(serialized, 3)
