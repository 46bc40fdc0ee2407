"""Loads what every command loads sooner or later: a process that has it need not load it again in
those that it forks.
"""

import importlib

COMMANDS = ("classify", "console", "evaluate", "export", "generate", "resume", "running")
OTHERS = (
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "pandas",
    "PIL.GifImagePlugin",
    "PIL.PngImagePlugin",
    "safetensors.torch",
)
MORE = ("sklearn.datasets", "sklearn.metrics", "drawbench.figures.run")

for name in (*(f"drawbench.cli.{command}" for command in COMMANDS), *OTHERS, *MORE):
    importlib.import_module(name)
