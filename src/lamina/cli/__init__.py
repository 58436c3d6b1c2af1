"""The command line: it parses, calls one workflow, and prints. It decides nothing."""

from lamina.cli.app import main

__all__ = ["main"]
