"""``python -m lamina``, as launchers of several processes start it."""

import sys

from lamina.cli import main

if __name__ == "__main__":
    try:
        main()
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit("Error: typer is not installed. Where there is lamina-runtime alone, call that.")
