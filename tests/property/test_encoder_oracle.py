"""The encoder against the oracle of tests/support, token by token. See docs/encoding-proof.md."""

from __future__ import annotations

import pyarrow as pa
import pytest
from arrow_strategies import cuts, examples, spans
from encoder_cases import call_cases, json_cases, spread_cases, value_cases
from encoder_check import batch_of, by_row, check, encoder_of
from encoder_oracle import Case
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model import Span


@pytest.mark.slow
@examples(2_000)
@given(case=value_cases())
def test_every_value_is_what_the_oracle_says(case: Case) -> None:
    check(case)


@pytest.mark.slow
@examples(700)
@given(case=call_cases(), first=st.sampled_from([0, 2**40]))
def test_every_call_is_what_the_oracle_says(case: Case, first: int) -> None:
    check(case, first)


@pytest.mark.slow
@examples(400)
@given(case=json_cases())
def test_text_that_should_be_json_is_what_the_oracle_says(case: Case) -> None:
    check(case)


@pytest.mark.slow
@examples(400)
@given(case=spread_cases())
def test_a_column_that_is_an_object_gives_its_members(case: Case) -> None:
    check(case)


@pytest.mark.slow
@examples(300)
@given(case=st.one_of(call_cases(), value_cases(), json_cases(), spread_cases()), data=st.data())
def test_bytes_and_ids_do_not_depend_on_how_rows_are_cut(case: Case, data: st.DataObject) -> None:
    """Into batches, and into streams: the encoder is told of neither but by the span."""
    batch = batch_of(case)
    whole = by_row(encoder_of(case).encode(batch, Span(stream=0, first=0, rows=case.rows)))
    apart: dict[int, tuple[str | None, bytes]] = {}
    for stream, (first, rows) in enumerate(spans(data.draw(cuts(case.rows)))):
        span = Span(stream=stream, first=first, rows=rows)
        apart |= by_row(encoder_of(case).encode(batch.slice(first, rows), span))
    assert apart == whole


@examples(200)
@given(case=st.one_of(call_cases(), value_cases()), rows=st.sampled_from([30, 700]))
def test_bytes_and_ids_are_the_same_in_small_and_large_batches(case: Case, rows: int) -> None:
    batch = batch_of(case)
    small = by_row(encoder_of(case).encode(batch, Span(stream=0, first=0, rows=case.rows)))
    if not case.rows:
        return
    many = -(-rows // case.rows)
    table = pa.Table.from_batches([batch] * many).combine_chunks()
    (large,) = table.to_batches()
    span = Span(stream=0, first=0, rows=many * case.rows)
    assert by_row(encoder_of(case).encode(large, span)) == {
        row: small[row % case.rows] for row in range(span.rows)
    }


@pytest.mark.slow
@examples(200)
@given(case=st.one_of(call_cases(), value_cases()), data=st.data())
def test_a_payload_too_large_by_a_byte_is_a_dead_letter(case: Case, data: st.DataObject) -> None:
    span = Span(stream=0, first=0, rows=case.rows)
    free = by_row(encoder_of(case).encode(batch_of(case), span))
    sizes = sorted({len(text) for reason, text in free.values() if reason is None})
    most = data.draw(st.sampled_from(sizes or [1])) - data.draw(st.integers(0, 1))
    bound = by_row(encoder_of(case, payload_bytes=most).encode(batch_of(case), span))
    assert bound == {
        row: (reason or ("payload_too_large" if len(text) > most else None), text)
        for row, (reason, text) in free.items()
    }
