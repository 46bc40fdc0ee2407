"""Recipes: the settings of an experiment, as TOML files, or as the configuration of a run."""

import dataclasses
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from drawbench.config.fields import nearest
from drawbench.config.tasks import SELECTORS, from_dict
from drawbench.config.training import LENGTHS
from drawbench.errors import Problem, reason
from drawbench.files import read_json

MAX_BYTES = 1 << 17


def recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files("drawbench.config") / "recipes"
    return sorted(
        file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")
    )


def load_recipe(name: str) -> dict[str, Any]:
    """Return the sections of a recipe of the package, by name, of a TOML file, or of a run.

    Args:
        name: a name, a TOML file, or the ``config.json`` of a run (or its folder).

    Raises:
        Problem: there is no such recipe, or it is not valid.
    """
    if name in recipes():
        path = resources.files("drawbench.config") / "recipes" / f"{name}.toml"
    else:
        path = Path(name)
        if (path / "config.json").is_file():
            path = path / "config.json"
        if path.suffix == ".json" and path.is_file():
            return _of_run(path)
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


def _of_run(path: Path) -> dict[str, Any]:
    """Return the settings of a stored configuration that are not the defaults, as a recipe has."""
    try:
        config = from_dict(read_json(path))
    except Problem as problem:
        raise Problem(f"{path} is not the configuration of a run: {problem}") from problem
    sections: dict[str, Any] = {"task": config.task}
    for section in dataclasses.fields(config):
        chosen = getattr(config, section.name)
        defaults = {each.name: each.default for each in dataclasses.fields(chosen)}
        sections[section.name] = {
            name: value
            for name, value in dataclasses.asdict(chosen).items()
            if name == SELECTORS.get(section.name) or value != defaults[name]
        }
    return sections


def under(sections: dict[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Return a recipe's sections as they stand under given settings.

    A length given replaces the recipe's, whatever either is counted in.
    """
    training = sections.get("training")
    if not isinstance(training, dict) or not any(name in LENGTHS for name in given):
        return sections
    kept = {name: value for name, value in training.items() if name not in LENGTHS}
    return {**sections, "training": kept}
