"""Figures and animations: pure functions from arrays, frames and records to a matplotlib
``Figure``, which :func:`save` writes, or to an animation file.

Nothing here runs a model, reads a run folder or touches pyplot. Names are imported on first use.
"""

import importlib
from typing import Any

_NAMES = {
    "animations": "Caption caption_animation drawing_animation glimpse_animation "
    "reconstruction_animation",
    "attention": "attention_explained",
    "captions": "attended_words captioned",
    "comparisons": "bound_curves error_against_images kl_lines",
    "curves": "confusion generator_curve learning_curves",
    "drawings": "interpolation_panel kl_map kl_per_step_bars reconstruction_panel sample_sheet "
    "steps_panel",
    "errors": "error_curve",
    "explained": "readings side_by_side",
    "glimpses": "glimpse_paths montage",
    "growth": "growth_panels",
    "mistakes": "mistakes_sheet",
    "style": "save",
    "windows": "outlines window_corners window_outlines",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'drawbench.figures' has no attribute {name!r}")
    return getattr(importlib.import_module(f"drawbench.figures.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
