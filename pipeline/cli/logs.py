"""Logs: one line per event on stderr, as text or JSON; never row content or secrets."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

from pipeline.ports import WHOLE, Shard

if TYPE_CHECKING:
    from pipeline.config import LogConfig


def configure(log: LogConfig, shard: Shard = WHOLE) -> None:
    """Make structlog write as `log` says, for the whole process; each line names its shard."""
    structlog.contextvars.clear_contextvars()
    if shard != WHOLE:
        structlog.contextvars.bind_contextvars(shard=f"{shard.index} of {shard.of}")
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log.format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[log.level.upper()]
        ),
        logger_factory=_logger,
        cache_logger_on_first_use=False,
    )


def _logger(*_arguments: object) -> structlog.WriteLogger:
    # Asked for anew by each line: progress bars put their own stderr in place meanwhile.
    return structlog.WriteLogger(file=sys.stderr)
