"""Exit codes: how a command's end becomes one of the codes of sysexits.h, and what is said of it.

Errors go to stderr. What nobody foresaw is named by its type alone: its message may hold row
content. RETL_LOG_LEVEL=debug adds where it happened.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable

import typer
from rich.padding import Padding
from rich.text import Text

from pipeline.cli.output import plain, stderr
from pipeline.errors import ConfigError, PipelineError

END_USAGE = 64
END_INTERNAL = 70
END_INTERRUPTED = 75
# Of several syncs the worst code counts: first what a person must mend (the program, the
# configuration, the credentials, the data), last what running again may mend by itself.
WORST_FIRST = (70, 78, 77, 64, 65, 75, 0)
# typer ends so on Ctrl-C, and when the reader of our output has gone (EPIPE).
TYPER_INTERRUPTED, TYPER_BROKEN_PIPE = 130, 1


def worst(codes: Iterable[int]) -> int:
    """The code that speaks for several; 0 of none."""
    return min(codes, key=_severity, default=0)


def _severity(code: int) -> int:
    return WORST_FIRST.index(code) if code in WORST_FIRST else 0


def ended(command: Callable[[], object]) -> int:
    """Call `command` and say how it ended: its exit code, errors told on stderr."""
    try:
        code = command()
    except typer.TyperException as error:
        _tell_usage(error)
        return END_USAGE
    except PipelineError as error:
        tell(error)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        stderr().print("retl: interrupted.")
        return END_INTERRUPTED
    except SystemExit as error:
        return END_INTERRUPTED if error.code == TYPER_BROKEN_PIPE else END_INTERNAL
    except Exception as error:  # noqa: BLE001 - the last edge: whatever it is, it gets a code
        _tell_internal(error)
        return END_INTERNAL
    if code == TYPER_INTERRUPTED:
        stderr().print("retl: interrupted.")
        return END_INTERRUPTED
    return code if isinstance(code, int) else 0


def _tell_usage(error: typer.TyperException) -> None:
    # The usage errors of typer know how to show themselves, with the usage line of their verb.
    show = getattr(error, "show", None)
    if show is not None:
        show()
    else:
        stderr().print(plain(str(error)))


def tell(error: PipelineError, about: str = "") -> None:
    """Say on stderr what happened; about: the sync, when the message can't know it."""
    console = stderr()
    known = not about or str(error).startswith(f"sync {about}: ")
    head = "retl: " if known else f"retl: {about}: "
    faults = error.faults if isinstance(error, ConfigError) else ()
    if not faults:
        console.print(Text.assemble((head, "bold red"), plain(str(error))))
        return
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    console.print(Text.assemble((head, "bold red"), f"{count} in the configuration"))
    for fault in faults:
        if console.is_terminal:
            console.print(Text("  " + plain(fault.where), style="bold"))
            said = f"{plain(fault.what)} {plain(fault.remedy)}".rstrip()
            console.print(Padding(Text(said), (0, 0, 0, 4)))
        else:
            console.print(Text(plain(str(fault))))


def _tell_internal(error: BaseException) -> None:
    console = stderr()
    while isinstance(error, BaseExceptionGroup):  # a task group's: name what is inside
        error = error.exceptions[0]
    name = type(error).__name__
    debug = os.environ.get("RETL_LOG_LEVEL", "").lower() == "debug"
    if debug:
        chain: BaseException | None = error
        while chain is not None:
            frames = "".join(traceback.format_tb(chain.__traceback__)).rstrip()
            console.print(Text(f"{type(chain).__name__}\n{plain(frames)}", style="dim"))
            chain = chain.__cause__ or chain.__context__
    hint = "" if debug else " RETL_LOG_LEVEL=debug shows where it happened."
    text = f"unexpected {name}. This is our own fault, please report it.{hint}"
    console.print(Text.assemble(("retl: ", "bold red"), text))
