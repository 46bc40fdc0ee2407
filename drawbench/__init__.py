"""drawbench: train, measure, compare and see visual attention (DRAW, Gregor et al. 2015).

The names below are the toolkit for a notebook or a program; the ``drawbench`` command does the same
from a shell. They are imported when first used, so ``import drawbench`` costs nothing.
"""

import importlib
from typing import Any

_HOME = {
    # the attention core
    "Window": "drawbench.attention",
    "Filters": "drawbench.attention",
    "bound": "drawbench.attention",
    "window": "drawbench.attention",
    "filterbank": "drawbench.attention",
    "read": "drawbench.attention",
    "write": "drawbench.attention",
    # likelihood and noise
    "bernoulli_log_likelihood": "drawbench.likelihood",
    "gaussian_kl": "drawbench.likelihood",
    "importance_weighted": "drawbench.likelihood",
    "normals": "drawbench.streams",
    # models
    "GlimpseClassifier": "drawbench.models.glimpse",
    "Glimpses": "drawbench.models.glimpse",
    "Draw": "drawbench.models.draw",
    "Drawing": "drawbench.models.draw",
    "Sample": "drawbench.models.draw",
    "VAE": "drawbench.models.vae",
    # data
    "Scene": "drawbench.data.scenes",
    "render": "drawbench.data.scenes",
    "fresh": "drawbench.data.scenes",
    "load_source": "drawbench.data.sources",
    "write_scenes": "drawbench.data.store",
    "load_scenes": "drawbench.data.store",
    "load_pictures": "drawbench.data.pictures",
    # measuring and runs
    "predict": "drawbench.evaluation.error_rate",
    "score": "drawbench.evaluation.error_rate",
    "wilson": "drawbench.evaluation.error_rate",
    "measure_bound": "drawbench.evaluation.bounds",
    "measure_importance_weighted": "drawbench.evaluation.bounds",
    "load_run": "drawbench.tasks",
    "Problem": "drawbench.errors",
}
_NAME_THERE = {
    "load_source": "load",
    "write_scenes": "write",
    "load_scenes": "load",
    "load_pictures": "load",
}
_NAME_THERE |= {"measure_bound": "bound", "measure_importance_weighted": "importance_weighted"}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'drawbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), _NAME_THERE.get(name, name))


def __dir__() -> list[str]:
    return sorted(_HOME)
