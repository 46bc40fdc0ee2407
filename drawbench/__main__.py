"""``python -m drawbench``: the same as the ``drawbench`` command."""

from drawbench.cli import main

if __name__ == "__main__":
    main()
