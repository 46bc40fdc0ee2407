"""Data sets by name. Each is a function ``(settings, context) -> Dataset`` in a file of its own."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drawbench.errors import Problem

if TYPE_CHECKING:
    from drawbench.data.dataset import Dataset

DATASETS = {
    "cluttered": "drawbench.data.cluttered:load",
    "mnist2": "drawbench.data.mnist2:load",
    "captions": "drawbench.data.captions:load",
    "mnist": "drawbench.data.mnist:load",
    "svhn": "drawbench.data.house_numbers:load",
    "cifar10": "drawbench.data.photographs:load_cifar10",
    "folder": "drawbench.data.folders:load",
}


def sources_root(folder: str | Path | None = None) -> Path:
    """Return the sources folder: ``folder``, or ``DRAWBENCH_SOURCES``, or ``datasets/sources``."""
    return Path(folder or os.environ.get("DRAWBENCH_SOURCES") or Path("datasets") / "sources")


def load(
    settings: Any,
    *,
    seed: int,
    sources_root: Path,
    datasets_root: Path,
    download: bool = True,
    say: Callable[[str], object],
    progress: Callable[[int, int], object] | None = None,
    factory: Callable[..., Any] | None = None,
) -> "Dataset":
    """Load the data set that settings describe: verified, and made or downloaded if missing.

    Args:
        settings: the section ``data`` of a configuration; its ``dataset`` is one of `DATASETS` or
            ``module:factory``. It has ``pixels`` for a generator and not for a classifier.
        seed: of the order of training images and of everything drawn during training.
        sources_root, datasets_root: folders of original files and of generated data sets.
        download: whether missing files may be downloaded.
        say: receives one sentence about whatever was chosen, made or left out.
        progress: called with what is done and what there is to do.
        factory: the function that ``module:factory`` names, already imported, see
            :func:`drawbench.data.user_set.load`.

    Raises:
        Problem: settings that do not go together; files that are missing, damaged or of another
            kind; a failed download.
    """
    from drawbench.data import user_set
    from drawbench.data.dataset import Context

    context = Context(seed, Path(sources_root), Path(datasets_root), download, say, progress)
    if factory is not None:
        return user_set.load(settings, context, factory)
    if settings.dataset not in DATASETS:
        raise Problem(
            f"there is no data set '{settings.dataset}': choose one of {', '.join(DATASETS)}, or "
            "give your own as module:factory"
        )
    module, function = DATASETS[settings.dataset].split(":")
    return getattr(import_module(module), function)(settings, context)
