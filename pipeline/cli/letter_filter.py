"""What the verbs about dead letters share: which of them are meant, and words for them."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.output import number
from pipeline.cli.state import unix_seconds
from pipeline.ports import LetterFilter, Obstacle

SyncArgument = Annotated[
    str | None, typer.Argument(metavar="SYNC", help="Of this sync only.", show_default=False)
]
RunOption = Annotated[
    str | None, typer.Option("--run", help="Of this run only.", show_default=False)
]
DestinationOption = Annotated[
    str | None, typer.Option("--destination", help="Of this destination only.", show_default=False)
]
ReasonOption = Annotated[
    str | None,
    typer.Option("--reason", help="With this reason: `rejected_400`.", show_default=False),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Dead since then: Unix seconds or ISO 8601.",
        show_default=False,
    ),
]
WHY = {
    Obstacle.INVALID: "invalid: correct the query or the data, and let the next run send the row",
    Obstacle.NOT_KEPT: "without payload: `dead_letters.payload` was not `full` when they were kept",
    Obstacle.PENDING: "of an unfinished run, which will send their rows again itself",
    Obstacle.SEALED: "encrypted, and `dead_letters.key` has not their key",
    Obstacle.TOO_LARGE: "larger than the destination takes",
    Obstacle.NO_DESTINATION: "of a destination that is not in the configuration",
}


def which_letters(
    sync: str | None,
    run: str | None,
    destination: str | None,
    reason: str | None,
    since: str | None,
) -> LetterFilter:
    """The filter that the options make. Raises a usage error for a bad time."""
    return LetterFilter(
        sync=sync,
        run=run,
        destination=destination,
        reason=reason,
        since=None if since is None else unix_seconds(since),
    )


def so_many(count: int) -> str:
    """So many of them, in words."""
    return "1 dead letter" if count == 1 else f"{number(count)} dead letters"
