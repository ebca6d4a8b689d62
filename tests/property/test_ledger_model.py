from hypothesis import given
from hypothesis import strategies as st

from pipeline.checkpoint import Ledger
from pipeline.errors import PipelineError
from pipeline.model import Span


class Oracle:
    """The slow and obvious ledger: a set of all settled rows."""

    def __init__(self, checkpoints: dict[int, int]) -> None:
        self.settled = {stream: set(range(rows)) for stream, rows in checkpoints.items()}

    def settle(self, span: Span) -> None:
        self.settled.setdefault(span.stream, set()).update(range(span.first, span.end))

    def checkpoints(self) -> dict[int, int]:
        return {stream: self.prefix(stream) for stream in self.settled}

    def prefix(self, stream: int) -> int:
        rows = 0
        while rows in self.settled[stream]:
            rows += 1
        return rows

    def pending(self, stream: int) -> int:
        return len(self.settled[stream]) - self.prefix(stream)


@st.composite
def tilings(draw: st.DrawFn) -> tuple[dict[int, int], list[Span]]:
    """Checkpoints of some streams, and spans that tile each of them from there, in any order."""
    checkpoints, spans = {}, []
    for stream in range(draw(st.integers(1, 3))):
        first = checkpoints[stream] = draw(st.integers(0, 5))
        for rows in draw(st.lists(st.integers(1, 6), max_size=12)):
            spans.append(Span(stream=stream, first=first, rows=rows))
            first += rows
    return checkpoints, draw(st.permutations(spans))


@given(tilings(), st.data())
def test_any_order_and_any_cut_equal_the_oracle(
    tiling: tuple[dict[int, int], list[Span]], data: st.DataObject
) -> None:
    checkpoints, spans = tiling
    cut = data.draw(st.integers(0, len(spans)))
    ledger, oracle = Ledger(checkpoints), Oracle(checkpoints)

    for span in spans[:cut]:
        ledger.settle(span)
        oracle.settle(span)
        assert ledger.checkpoints() == oracle.checkpoints()
        assert ledger.pending(span.stream) == oracle.pending(span.stream)

    # A resume knows the checkpoints only, and reads again from there.
    resumed = Ledger(ledger.checkpoints())
    for stream, first in data.draw(st.permutations(list(ledger.checkpoints().items()))):
        end = max([span.end for span in spans if span.stream == stream], default=first)
        resumed.settle(Span(stream=stream, first=first, rows=end - first))
    whole = Oracle(checkpoints)
    for span in spans:
        whole.settle(span)
    assert resumed.checkpoints() == whole.checkpoints()


@given(tilings(), st.data())
def test_after_any_order_the_dead_are_the_letters_below_the_checkpoints(
    tiling: tuple[dict[int, int], list[Span]], data: st.DataObject
) -> None:
    checkpoints, spans = tiling
    ledger, letters = Ledger(checkpoints), list[tuple[int, int]]()

    for span in spans:
        dead = data.draw(st.sets(st.integers(span.first, span.end - 1)))
        ledger.settle(span, dead=len(dead))
        letters += [(span.stream, row) for row in dead]
        prefix = ledger.checkpoints()
        assert ledger.dead() == sum(row < prefix[stream] for stream, row in letters)

    assert ledger.dead() == len(letters)


@given(tilings().filter(lambda tiling: bool(tiling[1])), st.data())
def test_one_span_too_many_is_found_and_never_moves_a_checkpoint_over_a_gap(
    tiling: tuple[dict[int, int], list[Span]], data: st.DataObject
) -> None:
    checkpoints, spans = tiling
    victim = data.draw(st.sampled_from(spans))
    first = data.draw(st.integers(victim.first, victim.end - 1))
    intruder = Span(stream=victim.stream, first=first, rows=data.draw(st.integers(1, 8)))
    order = list(spans)
    order.insert(data.draw(st.integers(0, len(order))), intruder)
    ledger, oracle = Ledger(checkpoints), Oracle(checkpoints)

    found = False
    for span in order:
        oracle.settle(span)
        try:
            ledger.settle(span)
        except PipelineError:
            found = True
            break
        allowed = oracle.checkpoints()
        assert all(rows <= allowed[stream] for stream, rows in ledger.checkpoints().items())

    assert found
