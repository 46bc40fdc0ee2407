"""Figures and animations: pure functions from arrays, frames and records to a matplotlib
``Figure``, which :func:`save` writes, or to an animation file.

Nothing here runs a model, reads a run folder or touches pyplot. Names are imported on first use.
"""

import importlib
from typing import Any

_HOME = {
    "attention_explained": "attention",
    "bound_curves": "comparisons",
    "confusion": "curves",
    "drawing_animation": "animations",
    "error_curve": "errors",
    "generator_curve": "curves",
    "glimpse_animation": "animations",
    "glimpse_paths": "glimpses",
    "interpolation_panel": "drawings",
    "kl_lines": "comparisons",
    "kl_map": "drawings",
    "kl_per_step_bars": "drawings",
    "learning_curves": "curves",
    "montage": "glimpses",
    "outlines": "windows",
    "reconstruction_animation": "animations",
    "reconstruction_panel": "drawings",
    "sample_sheet": "drawings",
    "save": "style",
    "steps_panel": "drawings",
    "window_corners": "windows",
    "window_outlines": "windows",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'drawbench.figures' has no attribute {name!r}")
    return getattr(importlib.import_module(f"drawbench.figures.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
