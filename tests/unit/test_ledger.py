import pytest

from pipeline.checkpoint import Ledger
from pipeline.errors import PipelineError
from pipeline.model import Span


def span(first: int, end: int, stream: int = 0) -> Span:
    return Span(stream=stream, first=first, rows=end - first)


def test_a_new_ledger_knows_nothing() -> None:
    ledger = Ledger({})

    assert ledger.checkpoints() == {}
    assert ledger.pending(0) == 0


def test_in_order_every_span_moves_the_checkpoint() -> None:
    ledger = Ledger({})

    ledger.settle(span(0, 10))
    assert ledger.checkpoints() == {0: 10}
    ledger.settle(span(10, 11))
    assert ledger.checkpoints() == {0: 11}


def test_a_gap_holds_the_checkpoint_until_it_is_filled() -> None:
    ledger = Ledger({0: 0})

    ledger.settle(span(20, 30))
    ledger.settle(span(10, 20))
    assert ledger.checkpoints() == {0: 0}
    assert ledger.pending(0) == 20

    ledger.settle(span(0, 10))
    assert ledger.checkpoints() == {0: 30}
    assert ledger.pending(0) == 0


def test_the_dead_count_once_a_checkpoint_covers_them() -> None:
    ledger = Ledger({0: 10})

    ledger.settle(span(20, 30), dead=4)
    ledger.settle(span(0, 2, stream=1), dead=1)
    assert ledger.dead() == 1
    ledger.settle(span(10, 20), dead=2)
    assert ledger.dead() == 7


def test_what_is_settled_behind_a_gap_takes_no_more_memory_the_more_it_is() -> None:
    ledger = Ledger({})
    for first in range(1, 2_000):
        ledger.settle(span(first, first + 1), dead=1)
    for first in range(4_000, 2_500, -1):
        ledger.settle(span(first, first + 1), dead=1)

    assert (ledger.pending(0), ledger.dead()) == (1_999 + 1_500, 0)
    assert len(ledger._streams[0].pending) == len(ledger._streams[0].ends) == 2
    ledger.settle(span(0, 1))
    ledger.settle(span(2_000, 2_501))
    assert (ledger.checkpoints(), ledger.dead()) == ({0: 4_001}, 1_999 + 1_500)
    assert not ledger._streams[0].pending
    assert not ledger._streams[0].ends


def test_it_goes_on_from_the_checkpoint_it_was_given() -> None:
    ledger = Ledger({3: 1_000, 4: 7})

    ledger.settle(span(1_000, 1_500, stream=3))

    assert ledger.checkpoints() == {3: 1_500, 4: 7}


def test_streams_do_not_touch_each_other() -> None:
    ledger = Ledger({})

    ledger.settle(span(0, 5, stream=1))
    ledger.settle(span(5, 9, stream=2))

    assert ledger.checkpoints() == {1: 5, 2: 0}
    assert (ledger.pending(1), ledger.pending(2)) == (0, 4)


def test_the_checkpoints_handed_out_are_a_copy() -> None:
    ledger = Ledger({0: 5})

    ledger.checkpoints()[0] = 99

    assert ledger.checkpoints() == {0: 5}


def test_the_mapping_it_was_given_stays_as_it_is() -> None:
    given = {0: 5}

    Ledger(given).settle(span(5, 8))

    assert given == {0: 5}


def test_a_span_of_no_rows_settles_nothing() -> None:
    ledger = Ledger({0: 5})

    for first in (0, 5, 5, 9):
        ledger.settle(span(first, first))
    ledger.settle(span(5, 10))

    assert ledger.checkpoints() == {0: 10}


@pytest.mark.parametrize(
    "spans",
    [
        pytest.param([span(0, 10)], id="before the prefix"),
        pytest.param([span(15, 25)], id="across the prefix"),
        pytest.param([span(30, 40), span(30, 40)], id="the same twice"),
        pytest.param([span(30, 40), span(30, 35)], id="the same start"),
        pytest.param([span(30, 40), span(20, 35)], id="reaching into a later one"),
        pytest.param([span(20, 35), span(30, 40)], id="starting inside the prefix made of it"),
        pytest.param([span(30, 60), span(40, 50), span(20, 30)], id="inside another"),
        pytest.param([span(30, 40), span(25, 40)], id="the same end"),
    ],
)
def test_rows_settled_twice_are_our_own_fault(spans: list[Span]) -> None:
    ledger = Ledger({0: 20})

    for early in spans[:-1]:
        ledger.settle(early)
    with pytest.raises(PipelineError, match="our own fault"):
        ledger.settle(spans[-1])


@pytest.mark.parametrize(
    "bad", [Span(stream=0, first=-1, rows=2), Span(stream=0, first=0, rows=-1)]
)
def test_a_span_that_can_not_be_is_refused(bad: Span) -> None:
    with pytest.raises(PipelineError, match="can't be settled"):
        Ledger({}).settle(bad)
