"""The trained models that come with the package.

Each is a run folder in half precision, so whatever reads a run reads it, by its name. The list is
``models.toml``. Nothing is ever written there: an installed package may be read-only.
"""

import tomllib
from pathlib import Path

HOME = Path(__file__).parent


def models() -> dict[str, dict[str, str]]:
    """Return the models by name, each with the published ``run`` it is and what it is ``about``."""
    return tomllib.loads((HOME / "models.toml").read_text(encoding="utf-8"))


def find(run: Path) -> Path:
    """Return the folder of a run: ``run``, or that of the model of this name if there is none."""
    return HOME / run if str(run) in models() and not run.is_dir() else run


def figures_of(folder: Path) -> Path | None:
    """Return where the figures of a model of the package go; None for any other run."""
    ours = folder.absolute().parent == HOME.absolute()
    return Path("results", "figures", folder.name) if ours else None
