"""How long to wait before a request is sent again. Pure: random numbers are a parameter."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.model import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with jitter; all in seconds.

    base, cap: the first wait's and every wait's upper end; those of common cloud clients.
    deadline: how long one Batch may be tried before the run gives up.
    """

    deadline: float
    base: float = 0.5
    cap: float = 30.0

    def wait(
        self,
        retries: int,
        verdict: Verdict,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> float:
        """Seconds before retry number `retries` (the first is 0).

        The destination's own wish counts in full, plus up to a tenth so that not everybody comes
        back at once. Else full jitter for faults, which spreads most; equal jitter for a throttle,
        which must not come back at once.
        """
        if verdict.after is not None:
            return verdict.after * uniform(1.0, 1.1)
        top = min(self.cap, self.base * 2.0 ** min(retries, 30))
        return uniform(top / 2 if verdict.throttled else 0.0, top)
