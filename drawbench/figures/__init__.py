"""Figures and films. They take arrays, frames and records, and give a matplotlib ``Figure``; :func:`save` writes it.

Nothing here trains, reads a run folder or touches pyplot, so a figure can be made anywhere: a test, a server, a notebook.
"""

from drawbench.figures.attention import attention_explained
from drawbench.figures.curves import confusion, error_curve, learning_curves
from drawbench.figures.glimpses import glimpse_film, glimpse_paths, montage
from drawbench.figures.style import save
from drawbench.figures.windows import rectangle

__all__ = [
    "attention_explained",
    "confusion",
    "error_curve",
    "glimpse_film",
    "glimpse_paths",
    "learning_curves",
    "montage",
    "rectangle",
    "save",
]
