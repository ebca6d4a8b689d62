"""Faults of a fault plan, done to a gRPC call: wait, hang, fail, or cut the connection.

Decides nothing: which call meets which fault is the plan's business (pipeline/local/faults.py).
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from pipeline.local.faults import Fault

# An HTTP status instead of a gRPC one, as clients see it:
# https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
_OF_HTTP = {
    400: "INTERNAL",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    429: "UNAVAILABLE",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
}
_PEER = re.compile(r"ipv[46]:\[?(.+?)\]?:(\d+)")
_DESCRIPTORS = Path("/dev/fd")


async def strike(fault: Fault, context: Any) -> None:
    """Let the fault happen to the call of `context`, a grpc.aio.ServicerContext.

    Returns only after a mere delay; otherwise the call ends here, or never until the client
    gives up.
    """
    if fault.delay:
        await asyncio.sleep(fault.delay)
    if fault.hang:
        await asyncio.Event().wait()
    if fault.reset and _cut(context.peer()):
        await asyncio.Event().wait()  # grpc cancels the call when it sees the connection gone
    name = fault.error
    if fault.status is not None:
        name = _OF_HTTP.get(fault.status, "UNKNOWN")
    if fault.reset:
        name = "UNAVAILABLE"
    if name is None:
        return
    code = grpc.StatusCode[name]
    message = fault.message or f"{name} by the fault plan"
    await context.abort(code, message, _details(code, message, fault.retry_after))


def _details(code: Any, message: str, retry_after: float | None) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata with a RetryInfo, as Google's services send it."""
    if retry_after is None:
        return ()
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(int(retry_after * 1e9))
    status = status_pb2.Status(code=code.value[0], message=message)
    detail = any_pb2.Any()
    detail.Pack(info)
    status.details.append(detail)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def _cut(peer: str) -> bool:
    """Shut down the connection with `peer` under grpc's feet; False if it isn't to be found.

    grpc offers no way to drop a connection, so its socket is looked up by the peer's address.
    """
    match = _PEER.fullmatch(unquote(peer))
    if match is None:
        return False
    wanted = (match[1], int(match[2]))
    for path in _DESCRIPTORS.iterdir() if _DESCRIPTORS.is_dir() else ():
        try:
            if not stat.S_ISSOCK(os.fstat(int(path.name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(path.name))) as connection:
                if _plain(connection.getpeername()) == wanted:
                    connection.shutdown(socket.SHUT_RDWR)
                    return True
        except OSError:
            continue  # closed meanwhile, or a socket without a peer
    return False


def _plain(address: Any) -> tuple[str, int] | None:
    """Host and port of an address; None for one of a Unix socket."""
    if not isinstance(address, tuple):
        return None
    return address[0].removeprefix("::ffff:"), address[1]  # grpc listens on mapped IPv4 addresses
