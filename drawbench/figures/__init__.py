"""Figures and films. They take arrays, frames and records, and give a matplotlib ``Figure``; :func:`save` writes it.

Nothing here trains, reads a run folder or touches pyplot, so a figure can be made anywhere: a test, a server, a notebook.
"""

from drawbench.figures.attention import attention_explained
from drawbench.figures.curves import confusion, error_curve, generator_curve, learning_curves
from drawbench.figures.drawings import interpolation_panel, kl_map, kl_per_step_bars, reconstruction_panel, sample_sheet, steps_panel
from drawbench.figures.films import drawing_film, reconstruction_film
from drawbench.figures.glimpses import glimpse_film, glimpse_paths, montage
from drawbench.figures.speed import growth
from drawbench.figures.style import save
from drawbench.figures.windows import rectangle

__all__ = [
    "attention_explained",
    "confusion",
    "drawing_film",
    "error_curve",
    "generator_curve",
    "glimpse_film",
    "glimpse_paths",
    "growth",
    "interpolation_panel",
    "kl_map",
    "kl_per_step_bars",
    "learning_curves",
    "montage",
    "reconstruction_film",
    "reconstruction_panel",
    "rectangle",
    "sample_sheet",
    "save",
    "steps_panel",
]
