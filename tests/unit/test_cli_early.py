"""Signals that come while the command is still being imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pipeline.cli import early
from pipeline.cli.app import run
from pipeline.cli.exits import END_INTERRUPTED

AS_MODULE = ["-m", "pipeline"]
AS_SCRIPT = ["-c", "from pipeline.__main__ import main; main()"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", [AS_MODULE, AS_SCRIPT], ids=["module", "script"])
@pytest.mark.parametrize("while_importing", ["typer._click", "rich.text", "numpy", "pyarrow.lib"])
def test_a_signal_during_the_imports_is_an_interruption(
    while_importing: str, command: list[str], number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", *command, "run", "users"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COVERAGE_PROCESS_START": ""},
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            if not line.startswith("import time:"):
                said.append(line)
            elif line.split("|")[-1].strip().startswith(while_importing):
                process.send_signal(number)
                break
        said += [line for line in process.stderr if not line.startswith("import time:")]
    assert (process.returncode, said) == (END_INTERRUPTED, ["retl: interrupted.\n"])


def test_nothing_that_takes_time_is_imported_before_signals_are_heard() -> None:
    code = (
        "import os, signal, sys; before = set(sys.modules)\n"
        "import pipeline.__main__\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - {"__future__"} == {
        *("pipeline", "pipeline.__main__", "pipeline.cli", "pipeline.cli.early")
    }


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in early._SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
def test_once_the_verb_is_there_signals_let_it_tidy_up() -> None:
    early.end_on_signals()
    assert run(["--help"]) == 0
    assert signal.getsignal(signal.SIGTERM) is early._end
    assert run(["list", "--help"]) == 0
    for number in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


@pytest.mark.usefixtures("_handlers")
def test_the_ways_of_a_program_around_stay() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert run(["list", "--help"]) == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    early.end_on_signals()
    early.interrupt_on_signals()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_the_code_is_that_of_an_interruption() -> None:
    assert early._END_INTERRUPTED == END_INTERRUPTED
