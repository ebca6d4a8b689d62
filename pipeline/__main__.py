"""The command `retl`, and `python -m pipeline`, which is the same.

Only what hears signals is imported at first, and all the rest once it does.
"""

import sys

from pipeline.cli.early import end_on_signals


def main() -> None:
    """Run the command of sys.argv, and exit with its code."""
    end_on_signals()
    from pipeline.cli.app import run  # noqa: PLC0415 - takes its time, and signals come any time

    sys.exit(run())


if __name__ == "__main__":
    main()
