"""`/metrics` over HTTP."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, start_http_server

from pipeline.errors import ConfigError, Fault
from pipeline.metrics.observer import PrometheusObserver


class MetricsServer:
    """`/metrics` on a thread of its own. port: the one taken, also when 0 was asked for."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._server, self._thread = start_http_server(port, host, registry)
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Stop listening; idempotent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


# What a user can do about each fault of listening; by errno.
_REMEDIES: Mapping[int | None, str] = {
    errno.EADDRINUSE: "Another process has it: choose another by `--metrics-port`, `metrics.port` "
    "or RETL_METRICS_PORT; 0 takes a free one.",
    errno.EACCES: "Ports under 1024 need privileges: choose a higher one.",
}


def serve(observer: PrometheusObserver, host: str, port: int) -> MetricsServer:
    """Serve the observer's metrics over HTTP until closed. Raises ConfigError if it can't."""
    try:
        return MetricsServer(observer.registry, host, port)
    except (OSError, OverflowError, UnicodeError) as error:  # a number or name that can't be one
        number = error.errno if isinstance(error, OSError) else None
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise ConfigError(
            [
                Fault(
                    "metrics.port" if number in _REMEDIES else "metrics.host",
                    f"/metrics can't be served on {host}, port {port}: {reason}.",
                    _REMEDIES.get(number, "Choose an address of this machine, and a free port."),
                )
            ]
        ) from error
