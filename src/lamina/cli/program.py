"""The program that the verbs belong to, and the options that all of them have."""

from typing import Annotated

import typer

from lamina.cli.terminal import Program

app = typer.Typer(
    name="lamina",
    cls=Program,
    help="Thin networks for medical image segmentation: labelled scans in, a small model out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Debugging messages too.")]


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Take the options that come before the verb."""
    if show:
        from lamina import __version__

        typer.echo(f"lamina {__version__}")
