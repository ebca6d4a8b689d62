"""Who sends next: first come, first served. One event loop only.

Only the first in line may leave, when it finds that it may. So nobody is overtaken, and what is
decided at a departure holds at that moment. Whoever there is room for is called at once, and all
of them leave in their order in the same round of the loop. To be called grants nothing: a call
in vain (cancelled, held up meanwhile) leaves nothing to give back.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Place:
    """Somebody's place in a Line."""

    call: asyncio.Future[None] | None = None  # None while it does not wait for one


class Line:
    """Those who wait for their turn, and the one whose turn it is."""

    def __init__(self) -> None:
        self._places: deque[Place] = deque()

    def __len__(self) -> int:
        return len(self._places)

    def join(self) -> Place:
        """A place at the end; `leave` it in any case."""
        place = Place()
        self._places.append(place)
        return place

    def is_first(self, place: Place) -> bool:
        """Whether it is this one's turn."""
        return self._places[0] is place

    async def wait(self, place: Place) -> None:
        """Until called."""
        place.call = asyncio.get_running_loop().create_future()
        try:
            await place.call
        finally:
            place.call = None

    def call(self, room: int) -> None:
        """There is room for so many: have the first, and the last of those, look whether they may.

        Called for each that lands, that is as many as there is room for; those in between whom it
        was not, follow the one before them. Nobody, while the first does not wait to be called: it
        is held up, or looks by itself.
        """
        places = self._places
        if room <= 0 or not places or places[0].call is None:
            return
        _wake(places[0])
        if room > 1:
            _wake(places[min(room, len(places)) - 1])

    def leave(self, place: Place, room: int) -> bool:
        """Give the place up, wherever it is, and call those who are first now; is there anybody?"""
        places = self._places
        if places[0] is place:
            places.popleft()
        else:
            places.remove(place)
        if not places:
            return False
        self.call(room)
        return True


def _wake(place: Place) -> None:
    if place.call is not None and not place.call.done():
        place.call.set_result(None)
