"""Signals before a verb is ready for them: while Python still imports what the verb needs.

Nothing has begun then, so the process ends at once, and says that running again is all there is to
do. Imports only what is there at the start of every Python: whatever else would take time, too.
"""

import os
import signal

_END_INTERRUPTED = 75  # that of `exits`, which takes too long to import
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_on_signals() -> None:
    """From now on SIGINT and SIGTERM end the process with exit code 75 and one line on stderr.

    One that is ignored, as SIGINT in the background of a shell, stays so.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def interrupt_on_signals() -> None:
    """The imports are over: both raise KeyboardInterrupt now, so that a verb can tidy up.

    Only where `end_on_signals` came before: a test or a program around has its own ways.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.default_int_handler)


def _end(number: int, frame: object) -> None:
    del number, frame
    try:
        # An exception, in the middle of an import, may be lost in there.
        os.write(2, b"retl: interrupted.\n")
    finally:
        os._exit(_END_INTERRUPTED)
