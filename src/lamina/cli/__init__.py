"""The command line: it parses, calls one workflow or list, and prints. It decides nothing."""

import sys

from lamina.signals import INTERRUPTED, end_like_ctrl_c

__all__ = ["main"]


def main() -> None:
    """Run the program; being told to end leaves no more behind than Ctrl-C does.

    A terminal that is closed tells it too, unless the program was to outlive it, as by ``nohup``.
    """
    end_like_ctrl_c()
    try:
        from lamina.cli.app import app  # its verbs take a moment, in which Ctrl-C may come

        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
