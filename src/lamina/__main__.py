"""``python -m lamina``, as launchers of several processes start it."""

from lamina.cli import main

if __name__ == "__main__":
    main()
