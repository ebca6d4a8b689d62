"""Routes under /_local, which the real service does not have: counts, record, reset, faults."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web

from pipeline.errors import ConfigError
from pipeline.local.customerio.items import CALLS
from pipeline.local.customerio.record import Record, find
from pipeline.local.customerio.service import Service, error_body
from pipeline.local.faults import FaultPlan

_LIMIT, _MOST = 100, 10_000


class Control:
    """What a test, a demo or a curious user asks of the local service."""

    def __init__(self, record: Record, service: Service) -> None:
        self._record, self._service = record, service

    def routes(self) -> list[web.RouteDef]:
        """All of them under /_local."""
        return [
            web.get("/_local/stats", self._stats),
            web.get("/_local/received", self._received),
            web.post("/_local/reset", self._reset),
            web.get("/_local/faults", self._faults),
            web.put("/_local/faults", self._put_faults),
        ]

    async def _stats(self, _request: web.Request) -> web.Response:
        self._record.flush()
        return _json(self._record.stats())

    async def _received(self, request: web.Request) -> web.Response:
        """Recorded calls as `{"received":[...]}`, byte for byte; ?type=&user_id=&limit=."""
        call, user = request.query.get("type"), request.query.get("user_id")
        text = request.query.get("limit", str(_LIMIT))
        if self._record.path is None:
            return _wrong(404, "nothing is recorded: start the local Customer.io with a record")
        if call is not None and call not in CALLS:
            return _wrong(400, f"type: one of {', '.join(CALLS)}")
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST):
            return _wrong(400, f"limit: a whole number from 1 to {_MOST}")
        self._record.flush()
        lines = await asyncio.to_thread(
            find, self._record.path, call=call, user=user, limit=int(text)
        )
        body = b'{"received":[' + b",".join(lines) + b"]}"
        return web.Response(body=body, content_type="application/json")

    async def _reset(self, _request: web.Request) -> web.Response:
        self._record.reset()
        return _json({})

    async def _faults(self, _request: web.Request) -> web.Response:
        plan = self._service.faults
        return _json({"plan": plan.text, "seen": plan.seen(), "fired": plan.fired()})

    async def _put_faults(self, request: web.Request) -> web.Response:
        """Replace the plan by the YAML of the body; its counts begin anew."""
        try:
            self._service.faults = FaultPlan.parse((await request.read()).decode())
        except (ConfigError, UnicodeDecodeError) as error:
            return _wrong(400, *str(error).splitlines())
        return await self._faults(request)


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _wrong(status: int, *texts: str) -> web.Response:
    return web.Response(status=status, body=error_body(*texts), content_type="application/json")
