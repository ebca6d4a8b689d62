"""The API itself: POST /v1/<call> and /v1/batch, as documented, and the faults of a plan.

What the documentation leaves open is an option or the reading that shows a fault of the sender
soonest. In `sink` mode a body is only counted, so that a benchmark meets no other cost.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import socket
import struct
import time
from collections.abc import Collection
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Literal

import orjson
from aiohttp import web
from isal import isal_zlib

from pipeline.local.customerio.items import (
    CALLS,
    MalformedError,
    Parsed,
    fault_in,
    parse_batch,
    parse_single,
)
from pipeline.local.customerio.record import Record
from pipeline.local.faults import Fault, FaultPlan

# "KB" is not defined by the documentation: the smaller reading, so that a sender that counts
# in KiB shows here.
CALL_BYTES = 32_000
BATCH_BYTES = 500_000
BODY_BYTES = 16 * 2**20
"""A body above this is refused unread (413): it protects this process."""

_LISTED_ERRORS = 100
_WRONG_KEY = "wrong"
_GZIP = 31  # zlib's window bits for the gzip format.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: the peer gets RST, not FIN.


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the service behaves.

    keys: the API keys it knows; None: any but `wrong`.
    mode: `full` reads every call, `sink` only counts requests and bytes.
    latency: seconds before every answer.
    rate_limit: requests per second, above which it answers 429; None: no limit.
    oversize: what happens above the limits: `drop` (200 and lost, as documented) or `413`.
    """

    keys: Collection[str] | None = None
    mode: Literal["full", "sink"] = "full"
    latency: float = 0.0
    rate_limit: float | None = None
    oversize: Literal["drop", "413"] = "drop"


class _RefusedError(Exception):
    """An answer other than 200; texts go into the error body."""

    def __init__(self, status: int, *texts: str, retry_after: str | None = None) -> None:
        super().__init__(status)
        self.status, self.texts, self.retry_after = status, texts, retry_after


class Service:
    """The routes of the API. faults: replaced while it runs. stop: ends every hanging call."""

    def __init__(
        self, options: Options, record: Record, faults: FaultPlan, stop: asyncio.Event
    ) -> None:
        self._options, self._record, self.faults, self._stop = options, record, faults, stop
        self._bucket = _Bucket(options.rate_limit) if options.rate_limit else None

    def routes(self) -> list[web.RouteDef]:
        """One route per endpoint: any other path is 404, any other method 405."""
        return [web.post(f"/v1/{name}", self._handle) for name in (*CALLS, "batch")]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._record.begin()
        outcome = "disconnected"
        try:
            response = await self._meet(request)
            outcome = str(response.status) if response is not None else "reset"
        except ConnectionError:  # The client went away: nobody hears an answer.
            response = None
        finally:
            self._record.end(outcome)
        return web.Response() if response is None else response  # The former goes nowhere.

    async def _meet(self, request: web.Request) -> web.Response | None:
        """Answer under the plan's fault, if one is due; None: the connection was cut."""
        call = request.path.rpartition("/")[2]
        fault = self.faults.next(call)
        delay = self._options.latency + (fault.delay if fault else 0.0)
        if delay:
            await asyncio.sleep(delay)
        if fault is None:
            return await self._answer(call, request)
        status = fault.status or (503 if fault.error else None)
        cut = fault.reset or fault.hang
        # 1. taken, or merely late: the work is done. 2. a status: the body is read, and lost.
        # 3. cut before the body is read.
        if fault.taken or not (cut or status):
            response = await self._answer(call, request)
        elif status:
            response = await self._answer(call, request, take=False)
        if cut:
            await self._cut(request, hang=fault.hang)
            return None
        return _faulty(status, fault) if status else response

    async def _answer(self, call: str, request: web.Request, *, take: bool = True) -> web.Response:
        """Do what the call asks for. take: False only reads it."""
        try:
            body = await self._receive(request)
            if take and self._options.mode == "full":
                self._check_who(request)
                self._take(call, request, body)
        except _RefusedError as refused:
            response = _refusal(refused.status, *refused.texts)
            if refused.retry_after is not None:
                response.headers["Retry-After"] = refused.retry_after
            return response
        except ConnectionError:
            raise
        except OSError as error:
            return _refusal(500, f"the local service can't record: {error.strerror}")
        return web.Response(body=b"{}", content_type="application/json")

    async def _cut(self, request: web.Request, *, hang: bool) -> None:
        if hang:
            await self._stop.wait()
        transport = request.transport
        if transport is not None:
            connection: socket.socket | None = transport.get_extra_info("socket")
            if connection is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()

    async def _receive(self, request: web.Request) -> bytes:
        """The body as sent; in sink mode it is counted and forgotten."""
        if self._options.mode == "sink":
            async for chunk in request.content.iter_any():
                self._record.wire_bytes += len(chunk)
            body = b""
        else:
            try:
                body = await request.read()
            except web.HTTPRequestEntityTooLarge:
                raise _RefusedError(413, f"body: more than {BODY_BYTES:,} bytes") from None
            self._record.wire_bytes += len(body)
        if self._bucket is not None:
            wait = self._bucket.take(time.monotonic())
            if wait:
                text = str(math.ceil(wait))
                raise _RefusedError(429, "too many requests", retry_after=text)
        return body

    def _check_who(self, request: web.Request) -> None:
        key = _key(request.headers.get("Authorization", ""))
        known = self._options.keys
        if not key or (key == _WRONG_KEY if known is None else key not in known):
            raise _RefusedError(401, "unauthorized: the API key is missing or not known")

    def _take(self, call: str, request: web.Request, body: bytes) -> None:
        """Record what of the body goes through. Raises _RefusedError for all that is not 200."""
        body = _decoded(request.headers.get("Content-Encoding", "identity"), body)
        self._record.body_bytes += len(body)
        single = call != "batch"
        limit = CALL_BYTES if single else BATCH_BYTES
        if len(body) > limit:
            self._oversize("body", None, len(body), limit)
            return
        try:
            parsed = parse_single(call, body) if single else parse_batch(body)
        except MalformedError as error:
            raise _RefusedError(400, str(error)) from None
        accepted = self._judge(parsed, single=single, strict=_strict(request))
        self._record.accept(accepted.lines, accepted.items)

    def _judge(self, parsed: Parsed, *, single: bool, strict: bool) -> Parsed:
        """The calls that go through; strictly, all or none."""
        texts = [fault_in(item) for item in parsed.items]
        bad = [index for index, text in enumerate(texts) if text is not None]
        if bad and strict:
            errors = [
                texts[index] if single else f"batch[{index}].{texts[index]}"
                for index in bad[:_LISTED_ERRORS]
            ]
            raise _RefusedError(400, *(str(error) for error in errors))
        large = [index for index, line in enumerate(parsed.lines) if len(line) > CALL_BYTES]
        if not bad and not large:
            return parsed
        for index in large:
            self._oversize(f"batch[{index}]", index, len(parsed.lines[index]), CALL_BYTES)
        gone = {*bad, *large}
        for index in gone.difference(large):
            self._record.drop("invalid", index=index, nbytes=len(parsed.lines[index]))
        kept = [index for index in range(len(texts)) if index not in gone]
        return Parsed([parsed.lines[i] for i in kept], [parsed.items[i] for i in kept])

    def _oversize(self, where: str, index: int | None, nbytes: int, limit: int) -> None:
        if self._options.oversize == "413":
            raise _RefusedError(413, f"{where}: {nbytes:,} bytes, more than {limit:,}")
        self._record.drop("oversize", index=index, nbytes=nbytes)


class _Bucket:
    """Tokens for `rate` requests a second, a second's worth at most."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = self._most = max(1.0, rate)
        self._at: float | None = None

    def take(self, now: float) -> float:
        """Seconds to wait; 0: a token was taken."""
        passed = now - self._at if self._at is not None else 0.0
        self._at = now
        self._tokens = min(self._most, self._tokens + passed * self._rate)
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate


def _strict(request: web.Request) -> bool:
    return request.headers.get("X-Strict-Mode", "").strip() == "1"


def _key(header: str) -> str:
    """The API key of an Authorization header; empty when there is none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        key, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return key if colon and not password else ""  # Documented: an empty password.


def _decoded(encoding: str, body: bytes) -> bytes:
    if encoding.lower() == "identity":
        return body
    if encoding.lower() != "gzip":
        raise _RefusedError(415, "Content-Encoding: gzip or none")
    stream = isal_zlib.decompressobj(wbits=_GZIP)
    try:
        plain: bytes = stream.decompress(body, BODY_BYTES + 1)
    except isal_zlib.error:  # type: ignore[misc]  # its stub names an instance
        raise _RefusedError(400, "body: not gzip") from None
    if len(plain) > BODY_BYTES:
        raise _RefusedError(413, f"body: more than {BODY_BYTES:,} bytes")
    if not stream.eof or stream.unused_data:
        raise _RefusedError(400, "body: not one whole gzip member")
    return plain


def error_body(*texts: str) -> bytes:
    """The documented shape of an error."""
    return orjson.dumps({"meta": {"errors": texts}})


def _refusal(status: int, *texts: str) -> web.Response:
    return web.Response(status=status, body=error_body(*texts), content_type="application/json")


def _faulty(status: int, fault: Fault) -> web.Response:
    """The answer that a plan asks for."""
    headers: dict[str, Any] = {}
    if fault.retry_after is not None:
        seconds = fault.retry_after
        headers["Retry-After"] = (
            formatdate(time.time() + seconds, usegmt=True) if fault.retry_date else f"{seconds:g}"
        )
    if 300 <= status < 400:
        headers["Location"] = "/v1/elsewhere"  # Following it ends in a 404.
    body = error_body(f"{status} by the fault plan") if fault.body is None else fault.body.encode()
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")
