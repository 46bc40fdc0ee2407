"""Two-digit MNIST: two digits on a 60x60 canvas, which may overlap (Gregor et al. 2015, 4.3)."""

from typing import Any

from drawbench.data.cluttered import load_scenes
from drawbench.data.dataset import Context, Dataset
from drawbench.data.scenes import Scene

PAIR = Scene(canvas=60, digits=2, clutter=0)


def load(settings: Any, context: Context) -> Dataset:
    """Load two-digit MNIST. Settings: ``pixels``, ``source``, ``data_seed``.

    Raises:
        Problem: files that are missing or damaged.
    """
    return load_scenes("mnist2", PAIR, settings, context)
