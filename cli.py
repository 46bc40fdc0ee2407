"""Launcher for a checkout: ``python cli.py ...`` is ``drawbench ...``."""

from drawbench.cli import main

if __name__ == "__main__":
    main()
