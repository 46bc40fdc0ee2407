"""drawbench: train, measure, compare and see visual attention (DRAW, Gregor et al. 2015).

The names below are the toolkit for a notebook or a program; the ``drawbench`` command does the same
from a shell. They are imported when first used, so ``import drawbench`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers read; at run time __getattr__ imports lazily
    from drawbench.attention import Filters as Filters
    from drawbench.attention import Window as Window
    from drawbench.attention import filterbank as filterbank
    from drawbench.attention import read as read
    from drawbench.attention import squash as squash
    from drawbench.attention import window as window
    from drawbench.attention import write as write
    from drawbench.config import Classify as Classify
    from drawbench.config import Generate as Generate
    from drawbench.data import load as load_dataset
    from drawbench.data.batch import Batch as Batch
    from drawbench.data.dataset import Dataset as Dataset
    from drawbench.data.digits import load as load_source
    from drawbench.data.generated import GeneratedDataset as GeneratedDataset
    from drawbench.data.scenes import Scene as Scene
    from drawbench.data.scenes import fresh as fresh
    from drawbench.data.scenes import render as render
    from drawbench.errors import Problem as Problem
    from drawbench.evaluation.bounds import bound as measure_bound
    from drawbench.evaluation.bounds import importance_weighted as measure_importance_weighted
    from drawbench.evaluation.error_rate import predict as predict
    from drawbench.evaluation.error_rate import score as score
    from drawbench.evaluation.error_rate import wilson as wilson
    from drawbench.likelihood import Bernoulli as Bernoulli
    from drawbench.likelihood import Gaussian as Gaussian
    from drawbench.likelihood import Logistic as Logistic
    from drawbench.models.draw import Draw as Draw
    from drawbench.models.draw import Drawing as Drawing
    from drawbench.models.draw import Sample as Sample
    from drawbench.models.glimpse import GlimpseClassifier as GlimpseClassifier
    from drawbench.models.glimpse import Glimpses as Glimpses
    from drawbench.models.glimpses import AffineGlimpse as AffineGlimpse
    from drawbench.models.glimpses import FixedGlimpse as FixedGlimpse
    from drawbench.models.glimpses import GaussianGlimpse as GaussianGlimpse
    from drawbench.models.glimpses import Glimpse as Glimpse
    from drawbench.models.glimpses import HardGlimpse as HardGlimpse
    from drawbench.models.glimpses import RandomGlimpse as RandomGlimpse
    from drawbench.models.vae import VAE as VAE
    from drawbench.reporters import Reporter as Reporter
    from drawbench.reporters import Views as Views
    from drawbench.streams import normals as normals
    from drawbench.tasks import create as create_task
    from drawbench.tasks import load_pretrained as load_pretrained
    from drawbench.tasks import load_run as load_run

_MODULES = {  # module -> names in it; tests hold this against the imports above
    "attention": "Filters Window filterbank read squash window write",
    "config": "Classify Generate",
    "data": "load_dataset=load",
    "data.batch": "Batch",
    "data.dataset": "Dataset",
    "data.digits": "load_source=load",
    "data.generated": "GeneratedDataset",
    "data.scenes": "Scene fresh render",
    "errors": "Problem",
    "evaluation.bounds": "measure_bound=bound measure_importance_weighted=importance_weighted",
    "evaluation.error_rate": "predict score wilson",
    "likelihood": "Bernoulli Gaussian Logistic",
    "models.draw": "Draw Drawing Sample",
    "models.glimpse": "GlimpseClassifier Glimpses",
    "models.glimpses": "AffineGlimpse FixedGlimpse GaussianGlimpse Glimpse HardGlimpse "
    "RandomGlimpse",
    "models.vae": "VAE",
    "reporters": "Reporter Views",
    "streams": "normals",
    "tasks": "create_task=create load_pretrained load_run",
}
_HOME = {
    name: (f"drawbench.{module}", there or name)
    for module, names in _MODULES.items()
    for name, _, there in (word.partition("=") for word in names.split())
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'drawbench' has no attribute {name!r}")
    module, there = _HOME[name]
    return getattr(importlib.import_module(module), there)


def __dir__() -> list[str]:
    return __all__
