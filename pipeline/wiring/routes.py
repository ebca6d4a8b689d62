"""A Destination with its own transport, pace and permits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pipeline.config import Config, FileDestination
from pipeline.destination.file import File
from pipeline.events import Warned
from pipeline.ports import Destination, Observer, Transport
from pipeline.run.route import Route
from pipeline.send.concurrency import Adaptive, Fixed
from pipeline.send.file_transport import FileTransport
from pipeline.send.folder import Folder
from pipeline.send.limiter import Limiter
from pipeline.send.ordered import Ordered
from pipeline.send.part_files import PartFiles
from pipeline.send.part_format import ndjson, parquet
from pipeline.send.retry import RetryPolicy
from pipeline.send.sender import Sender
from pipeline.send.transport import HttpTransport, Timeouts
from pipeline.wiring.destinations import destination_of
from pipeline.wiring.identity import user_agent


@asynccontextmanager
async def open_route(
    config: Config, name: str, target: str, dry_run: Path | None, observer: Observer
) -> AsyncIterator[Route]:
    """A destination with its own transport, pace and permits."""
    send = config.send
    destination = make_destination(config, target)
    settings = config.destinations[target]
    for note in settings.notes() if dry_run is None else ():
        observer(Warned(sync=name, destination="", text=f"destinations.{target}: {note}"))
    if dry_run is None and isinstance(settings, FileDestination) and settings.parts:
        yield _parts_route(config, name, settings, destination, observer)
        return
    transport: Transport
    if dry_run is not None:
        destination = File(name=target, limits=destination.limits)
        transport = FileTransport(dry_run, append=False)
        await transport.open()  # a run of no rows leaves no rows of the last one
    elif isinstance(settings, FileDestination):
        path, longest = Path(config.resolve(settings.path)), destination.limits.payload_bytes
        transport = FileTransport(path, append=True, line_bytes=longest)
    else:
        transport = make_http_transport(config)
    allowed = None if dry_run is not None else destination.limits.requests_per_second
    rate = send.rate_limit
    sender = Sender(
        sync=name,
        destination=destination,
        transport=transport,
        limiter=Limiter(
            requests=rate.requests_per_second or allowed,
            rows=rate.rows_per_second,
            burst=rate.burst,
            processes=config.shard.of,
        ),
        retry=RetryPolicy(deadline=send.retry_deadline),
        concurrency=Fixed(send.concurrency)
        if isinstance(send.concurrency, int)
        else Adaptive(send.max_concurrency),
        observer=observer,
    )
    try:
        ordered = _is_ordered(config, name)
        deliverer = Ordered(sender, destination) if ordered else sender
        yield Route(destination=destination, deliverer=deliverer, share=sender.share)
    finally:
        await transport.close()


def _is_ordered(config: Config, name: str) -> bool:
    """Whether a sync keeps an order. Dead letters may be of one that the configuration has lost."""
    sync = config.syncs.get(name)
    return sync is not None and sync.is_ordered


def _parts_route(
    config: Config,
    name: str,
    settings: FileDestination,
    destination: Destination,
    observer: Observer,
) -> Route:
    """To a folder of whole files; nothing has to be closed."""
    parts = PartFiles(
        Folder(config.resolve(settings.path)),
        sync=name,
        destination=destination.name,
        shown=settings.path,
        write=parquet if settings.format == "parquet" else ndjson,
        suffix=f".{settings.format}",
        retry=RetryPolicy(deadline=config.send.retry_deadline),
        observer=observer,
        in_order=_is_ordered(config, name),
    )
    return Route(destination=destination, deliverer=parts, begin=parts.begin)


def make_http_transport(config: Config) -> HttpTransport:
    """A Transport for one HTTP destination; connects when it first posts. Raises ConfigError."""
    send, http = config.send, config.http
    return HttpTransport(
        connections=send.most_in_flight,
        timeouts=Timeouts(
            connect=send.connect_timeout,
            read=send.read_timeout or send.timeout,
            total=send.timeout,
        ),
        user_agent=user_agent(),
        ca_file=Path(config.resolve(http.ca_file)) if http.ca_file else None,
        proxy=http.proxy.get_secret_value() if http.proxy else None,
        allowed_hosts=tuple(http.allowed_hosts),
    )


def make_destination(config: Config, target: str) -> Destination:
    """The Destination of that name; no I/O."""
    encoding = "gzip" if config.send.compression == "gzip" else "identity"
    return destination_of(target, config.destinations[target], encoding)
