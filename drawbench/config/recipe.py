"""Recipes: the settings of an experiment, as TOML files."""

import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from drawbench.config.fields import nearest
from drawbench.config.training import LENGTHS
from drawbench.errors import Problem, reason

MAX_BYTES = 1 << 17


def recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files("drawbench.config") / "recipes"
    return sorted(
        file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")
    )


def load_recipe(name: str) -> dict[str, Any]:
    """Return the sections of a recipe of the package, by name, or of a TOML file.

    Raises:
        Problem: there is no such recipe, or it is not valid TOML.
    """
    if name in recipes():
        path = resources.files("drawbench.config") / "recipes" / f"{name}.toml"
    else:
        path = Path(name)
        if not path.is_file():
            raise Problem(
                f"there is no recipe {name!r}{nearest(name, recipes())};"
                f" give a TOML file or one of {', '.join(recipes())}"
            )
        if path.stat().st_size > MAX_BYTES:
            raise Problem(f"recipe {name} is larger than 128 kB; a recipe is a short TOML file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # a byte-order mark is allowed
    except OSError as error:
        raise Problem(f"recipe {name} cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:  # text that is no UTF-8 is a ValueError too
        raise Problem(f"recipe {name} is not valid TOML: {reason(error)}") from error


def under(sections: dict[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Return a recipe's sections as they stand under given settings.

    A length given replaces the recipe's, whatever either is counted in.
    """
    training = sections.get("training")
    if not isinstance(training, dict) or not any(name in LENGTHS for name in given):
        return sections
    kept = {name: value for name, value in training.items() if name not in LENGTHS}
    return {**sections, "training": kept}
