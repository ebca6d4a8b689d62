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
    deadline: how long an outage, or one Batch alone, may last before the run gives up.
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

        Full jitter for faults, which spreads most; equal jitter for a throttle, which must not
        come back at once. The destination's own wish is met in full, plus up to a tenth so that
        not everybody comes back at once; a wish for no wait at all (0, a date gone by) is not.
        """
        top = min(self.cap, self.base * 2.0 ** min(retries, 30))
        backoff = uniform(top / 2 if verdict.throttled else 0.0, top)
        if verdict.after is None:
            return backoff
        return max(backoff, verdict.after * uniform(1.0, 1.1))
