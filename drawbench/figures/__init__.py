"""Figures and films. They take arrays, frames and records, and give a matplotlib ``Figure``;
:func:`save` writes it.

Nothing here trains, reads a run folder or touches pyplot, so a figure can be made anywhere: a test,
    a server, a notebook. Names are
imported when first used: the figures of finished runs need no torch.
"""

import importlib
from typing import Any

_HOME = {
    "attention_explained": "attention",
    "bound_curves": "comparisons",
    "confusion": "curves",
    "drawing_film": "films",
    "error_curve": "curves",
    "generator_curve": "curves",
    "glimpse_film": "glimpses",
    "glimpse_paths": "glimpses",
    "growth": "speed",
    "interpolation_panel": "drawings",
    "kl_lines": "comparisons",
    "kl_map": "drawings",
    "kl_per_step_bars": "drawings",
    "learning_curves": "curves",
    "montage": "glimpses",
    "reconstruction_film": "films",
    "reconstruction_panel": "drawings",
    "rectangle": "windows",
    "sample_sheet": "drawings",
    "save": "style",
    "steps_panel": "drawings",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'drawbench.figures' has no attribute {name!r}")
    return getattr(importlib.import_module(f"drawbench.figures.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
