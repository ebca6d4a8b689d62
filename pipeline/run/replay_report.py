"""What a replay of dead letters comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import PipelineError
from pipeline.model import Result
from pipeline.ports import Obstacle


@dataclass(slots=True, kw_only=True)
class Replayed:
    """What became of the letters of one destination. left: not tried, and why."""

    letters: int = 0
    delivered: int = 0
    rejected: int = 0
    left: Counter[Obstacle] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """How the replay of one sync ended."""

    sync: str
    result: Result
    seconds: float
    destinations: Mapping[str, Replayed]
    error: PipelineError | None = None

    @property
    def exit_code(self) -> int:
        """0 when all that can be was tried; 75 when interrupted; else that of the error."""
        if self.error is not None:
            return self.error.exit_code
        return 0 if self.result is Result.COMPLETE else 75

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {
            "sync": self.sync,
            "result": self.result,
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 3),
            "destinations": {
                name: {
                    "replayable": one.letters,
                    "delivered": one.delivered,
                    "rejected": one.rejected,
                    "left_out": {obstacle.value: n for obstacle, n in one.left.items() if n},
                }
                for name, one in self.destinations.items()
            },
            "error": None if self.error is None else str(self.error),
        }
