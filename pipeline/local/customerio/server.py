"""The process: one listening socket, from ready to stop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from aiohttp import web
from aiohttp.typedefs import Handler

from pipeline.errors import ConfigError
from pipeline.local.customerio.control import Control
from pipeline.local.customerio.record import Record
from pipeline.local.customerio.service import BODY_BYTES, Options, Service, error_body
from pipeline.local.faults import FaultPlan

_GRACE = 2.0  # Seconds for answers under way when the server is told to stop.
_READ_BUFFER = 2**20  # A batch of 480 KB arrives in a few wake-ups.


async def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    keys: Collection[str] | None = None,
    record: Path | None = None,
    unique: bool = False,
    mode: Literal["full", "sink"] = "full",
    latency: float = 0.0,
    rate_limit: float | None = None,
    oversize: Literal["drop", "413"] = "drop",
    faults: FaultPlan | None = None,
    ready: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Serve until `stop` is set; prints nothing.

    port: 0 takes a free one. record: NDJSON file of the accepted calls, begun anew.
    unique: count distinct message ids, at some 100 bytes of memory each. The rest: see Options.
    ready: called once, with the base URL without /v1, e.g. `http://127.0.0.1:8080`.
    Raises ConfigError when the record can't be written or the address not be listened on.
    """
    options = Options(
        keys=keys, mode=mode, latency=latency, rate_limit=rate_limit, oversize=oversize
    )
    book = Record(record, unique=unique)
    service = Service(options, book, faults or FaultPlan(), stop)
    app = web.Application(client_max_size=BODY_BYTES, middlewares=[_as_documented])
    app.add_routes([*service.routes(), *Control(book, service).routes()])
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_silent(),
        auto_decompress=False,  # Its own decompression has no bound.
        read_bufsize=_READ_BUFFER,
        shutdown_timeout=_GRACE,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ConfigError(
                f"local Customer.io: can't listen on {host}:{port}: {reason}. "
                "Choose another port, or 0 for a free one."
            ) from None
        ready(f"http://{_shown(host)}:{runner.addresses[0][1]}")
        await stop.wait()
    finally:
        await runner.cleanup()
        book.close()


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _silent() -> logging.Logger:
    """A logger of our own that goes nowhere: clients that vanish are no news here."""
    logger = logging.getLogger("pipeline.local.customerio")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


@web.middleware
async def _as_documented(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Unknown paths and wrong methods in the API's own error shape."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return web.Response(
            status=error.status,
            body=error_body(error.reason),
            headers=allow,
            content_type="application/json",
        )
