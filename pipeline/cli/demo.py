"""The verb demo: the product's first impression, everything on this machine.

Starts a local BigQuery and a local Customer.io, fills tables through Google's own client, runs
six syncs, changes some rows, runs them again, and checks what arrived against what was sent.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from google.api_core.exceptions import GoogleAPIError
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from rich.text import Text

from pipeline.cli import demo_report
from pipeline.cli.exits import END_INTERRUPTED, worst
from pipeline.cli.local import require_extra
from pipeline.cli.logs import configure
from pipeline.cli.loop import Stopping, run_async
from pipeline.cli.output import number, plain, stderr, stdout
from pipeline.cli.run import Ended, Job
from pipeline.cli.services import Services
from pipeline.config import SHORT_NAMES, Config, load_config
from pipeline.errors import PipelineError
from pipeline.local.sample.load import MOST_ROWS, changes, configuration, counts, statements

FOLDER = Path(".retl/demo")
# Tells a folder that a demo made from one that holds somebody's work.
MARKER = ".made-by-retl-demo"
# A local server answers at once or is gone.
RETRY_SECONDS = 20.0

app = typer.Typer()


@app.command()
def demo(
    *,
    rows: Annotated[
        int, typer.Option("--rows", min=1, max=MOST_ROWS, help="Users; events are 1.5 times more.")
    ] = 200_000,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="DIR",
            help="Work in DIR instead of .retl/demo, and keep there what arrived, too.",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """See six syncs run, everything on this machine and no account needed.

    Works in .retl/demo, which is made anew each time. Exit code 0 when everything adds up.
    """
    require_extra()
    _stay_here()
    folder = _fresh(keep or FOLDER)
    promise = "Stopping: delivering what is in flight. A second signal ends at once."
    with Stopping(promise, hurried=END_INTERRUPTED) as stopping:
        code = _show(folder, rows, stopping, record=keep is not None)
    raise typer.Exit(code)


def _show(folder: Path, rows: int, stopping: Stopping, *, record: bool) -> int:
    """The demo from start to end; its exit code."""
    stderr().print(
        Text("A local BigQuery, a local Customer.io, and six syncs between them", "bold")
    )
    with ExitStack() as stack:
        with _step("local servers", "starting") as said:
            services = stack.enter_context(Services(folder, record=record))
            said.append(f"{services.bigquery['rest']}, {services.customerio['url']}")
        with _step("sample data", "creating tables") as said:
            _execute(services, statements(rows))
            made = counts(rows)
            said.append(f"{number(made['users'])} users, {number(made['events'])} events, ...")
        config = _configured(folder, services)
        rounds = [_round("Round 1: everything", config, stopping)]
        if not stopping.asked:
            with _step("changes", "changing rows") as said:
                _execute(services, changes())
                said.append("1 user in 100, new orders and page views")
            rounds.append(_round("Round 2: only what changed", config, stopping))
        if stopping.asked:
            stderr().print("Stopped before the end. `demo` starts afresh each time.")
            return worst([END_INTERRUPTED, *(one.exit_code for ended in rounds for one in ended)])
        stats = demo_report.fetch_stats(services.customerio["url"])
        again = demo_report.serve_again(services.bigquery, services.database)
        return demo_report.show(stdout(), config, rounds, stats, folder=folder, again=again)


def _round(title: str, config: Config, stopping: Stopping) -> Sequence[Ended]:
    stderr().print(Text(f"\n{title}", "bold"))
    return run_async(Job(config, list(config.syncs)).run(stopping))


def _configured(folder: Path, services: Services) -> Config:
    path = folder / "retl.yml"
    text = configuration(
        rest=services.bigquery["rest"],
        storage=services.bigquery["storage"],
        customerio=services.customerio["url"],
    )
    path.write_text(text, encoding="utf-8")
    # Tunables may be tried out here; where the state and the servers are is the demo's business.
    tunables = {name for name in SHORT_NAMES if name != "RETL_STATE"}
    env = {name: value for name, value in os.environ.items() if name in tunables}
    config = load_config(path, env)
    configure(config.log)
    return config


def _execute(services: Services, script: Sequence[str]) -> None:
    client = bigquery.Client(
        project="local",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": services.bigquery["rest"]},
    )
    retry = Retry(deadline=RETRY_SECONDS)
    try:
        for sql in script:
            client.query(sql, retry=retry, job_retry=None).result(retry=retry, job_retry=None)
    except (GoogleAPIError, OSError) as error:
        services.check()
        raise PipelineError(f"The local BigQuery refused the sample: {error}") from error
    finally:
        client.close()


@contextmanager
def _step(name: str, doing: str) -> Iterator[list[str]]:
    """A line for something that takes a moment; the block appends what came of it."""
    console = stderr()
    began = time.monotonic()
    said: list[str] = []
    with console.status(f"{name}: {doing}"):
        yield said
    seconds = time.monotonic() - began
    what = Text.assemble(
        ("ok  ", "green"), f"{name:<14}", plain(" ".join(said)), (f"  {seconds:.1f} s", "dim")
    )
    console.print(what)


def _fresh(folder: Path) -> Path:
    """`folder`, empty. Raises a usage error rather than remove what no demo made."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise typer.BadParameter(
                f"{folder} holds something that no demo made. Name another folder.",
                param_hint="--keep",
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    return folder


def _stay_here() -> None:
    """Keep Google's clients from asking a proxy for the way to this machine."""
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
