"""Whether a destination can be reached and accepts our key, found out without a person's data."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from pipeline.config import Config, FileDestination
from pipeline.errors import (
    ConfigError,
    CredentialsError,
    DestinationError,
    DestinationRefused,
    PipelineError,
)
from pipeline.findings import Finding, Outcome, failed, skipped
from pipeline.model import Action, Answer, Verdict
from pipeline.send.folder import Folder
from pipeline.wiring.routes import make_destination, make_http_transport
from pipeline.wiring.state import existing

# What to look at when a request came to nothing, by the Transport's word for it. url: the key that
# says where the destination is.
_UNREACHED = {
    "dns": "Its name is not found: check `{url}`, and the DNS of this machine or pod.",
    "tls": "TLS fails: check `{url}`, and what stands between here and there.",
    "certificate_expired": "Its certificate has expired: whoever runs it has to renew it.",
    "certificate_not_yet_valid": "Its certificate is not valid yet: check this machine's clock.",
    "certificate_hostname": "Its certificate is for another name: check `{url}`.",
    "certificate_untrusted": "Nobody known has signed its certificate: give `http.ca_file` your "
    "company's authorities, if a proxy breaks TLS open or the server is yours.",
    "connect": "Check `{url}`, firewalls and egress policies. Only `http.proxy` is used as a "
    "proxy, no variable of the environment.",
    "proxy": "`http.proxy` can't be reached: check its host and port.",
    "proxy_refused": "`http.proxy` refuses: check its user and password, and what it lets through.",
}


async def probe(config: Config, name: str) -> AsyncIterator[Finding]:
    """Whether a destination can be reached and takes our key, or a file can be written."""
    settings, about = config.destinations[name], f"destination {name}"
    for note in settings.notes():
        yield Finding(about=about, check="settings", outcome=Outcome.WARNING, what=note)
    if isinstance(settings, FileDestination):
        check = _folder if settings.parts else _writable
        yield await asyncio.to_thread(check, about, config.resolve(settings.path))
        return
    destination = make_destination(config, name)
    try:
        transport = make_http_transport(config)
    except ConfigError as error:
        yield failed(about, "reachable", error)
        yield skipped(about, "key", "reachable")
        return
    try:
        # Assumed, and not tried against the real API: a good key gets 200 or 400 for a batch of
        # nothing, and a bad one 401 or 403 before anybody looks at the batch.
        request = destination.request(destination.envelope.wrap([]))
        answer = await transport.post(request)
    except DestinationRefused as error:  # by ourselves: nothing may be sent there
        yield failed(about, "reachable", error)
        yield skipped(about, "key", "reachable")
        return
    finally:
        await transport.close()
    key = "url" if "url" in type(settings).model_fields else "endpoint"
    secure = request.url.startswith("https:")
    verdict = destination.judge(answer, 0.0)
    for finding in answered(about, answer, verdict, url=key, secure=secure):
        yield finding


def answered(
    about: str, answer: Answer, verdict: Verdict, *, url: str = "endpoint", secure: bool = True
) -> Iterable[Finding]:
    """What an answer to an empty batch says of the way there, and of the key.

    url: the configuration's key for where it is. secure: it was asked by https.
    """
    if answer.status == 0:
        word = answer.error or "network"
        remedy = _UNREACHED.get(word, _UNREACHED["connect"])
        yield Finding(
            about=about,
            check="reachable",
            outcome=Outcome.FAILED,
            what=f"no answer ({word})",
            remedy=remedy.format(url=url),
            exit_code=DestinationError.exit_code,
        )
        yield skipped(about, "key", "reachable")
        return
    way = "DNS, TCP and TLS work" if secure else "it is there, by plain http"
    what = f"{way}; it answers {answer.status}"
    yield Finding(about=about, check="reachable", outcome=Outcome.OK, what=what)
    yield _key(about, answer, verdict, url)


def _key(about: str, answer: Answer, verdict: Verdict, url: str) -> Finding:
    kind: type[PipelineError]
    if verdict.action in {Action.DELIVERED, Action.SPLIT, Action.REJECT}:
        what = f"the key is accepted ({answer.status} for an empty batch)"
        return Finding(about=about, check="key", outcome=Outcome.OK, what=what)
    if verdict.credentials:
        kind, what = CredentialsError, f"the key is refused ({answer.status})"
        remedy = "Check the key and the region: a key belongs to one of them."
    elif verdict.action is Action.HALT:
        kind, what = DestinationRefused, f"the request as such is refused ({answer.status})"
        remedy = f"Check `{url}`."
    else:
        kind, what = DestinationError, f"it is there and fails ({answer.status})"
        remedy = "The key was not judged: try again later."
    return Finding(
        about=about,
        check="key",
        outcome=Outcome.FAILED,
        what=what,
        remedy=remedy,
        exit_code=kind.exit_code,
    )


def _folder(about: str, given: str) -> Finding:
    """Whether a folder can take files; of an object store, whether it can be asked at all."""
    if "://" not in given:
        return _writable(about, given, folder=True)
    try:
        Folder(given).look()
    except (OSError, ValueError) as error:
        what = f"it can't be reached ({type(error).__name__})"
        remedy = "Check `path`, and the credentials of the store in the environment."
        return Finding(
            about=about,
            check="reachable",
            outcome=Outcome.FAILED,
            what=what,
            remedy=remedy,
            exit_code=DestinationError.exit_code,
        )
    what = "the store answers; whether it takes files shows when the first is written"
    return Finding(about=about, check="reachable", outcome=Outcome.OK, what=what)


def _writable(about: str, given: str, *, folder: bool = False) -> Finding:
    path = Path(given)
    there = existing(path)
    if path.exists() and path.is_dir() != folder:
        error = f"{path} is {'no' if folder else 'a'} folder."
    elif not os.access(there, os.W_OK | (os.X_OK if there.is_dir() else 0)):
        error = f"{there} can't be written by this user."
    else:
        what = f"{path} can be written"
        return Finding(about=about, check="writable", outcome=Outcome.OK, what=what)
    return failed(about, "writable", ConfigError(f"{error} Give the destination another `path`."))
