"""The card of a generated data set: what its folder holds and how that was made.

The card is written last and removed first, so a folder with a card is complete.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from drawbench import files
from drawbench.data.scenes import Digits, Layout, Scene
from drawbench.data.sentences import CaptionScene
from drawbench.errors import Problem, reason

FORMAT = "drawbench data set"
VERSION = 1  # rises when the same recipe and seed would give other pixels
CARD = "card.json"
OWN_HASH = "card_sha256"  # of the card itself
FIELDS = set(
    [
        "format",
        "version",
        "dataset",
        "recipe",
        "source",
        "source_note",
        "source_sha256",
        "seed",
        "counts",
        "sha256",
        "content_sha256",
        "rule",
        "command",
        "drawbench",
        "torch",
    ]
)


class Recipe(Protocol):
    """How scenes of a set are rendered: a dataclass whose fields are whole numbers."""

    @property
    def parts(self) -> Mapping[str, str]:
        """The files, without ending, and the part of the source that each is made of."""

    @property
    def canvas(self) -> int:
        """Side of the square images, pixels."""

    @property
    def scene_bytes(self) -> int:
        """Memory that rendering a scene takes, roughly."""

    def stored(self, digits: Digits, index: Tensor, seed: int, part: str) -> Any:
        """Render scenes ``index`` of a part: a named tuple of tensors, ``images`` first."""

    def layout(self, count: int) -> dict[str, Layout]:
        """Return type and shape of each array of a part of ``count`` scenes."""

    def check(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Raise ValueError if an array holds what no scene has."""

    def words(self, dataset: str) -> list[str]:
        """Return what a folder's name says beside data set, canvas, source and seed."""

    def rule(self, seed: int) -> str:
        """Return the recipe in words."""


RECIPES: dict[str, Callable[..., Recipe]] = {"captions": CaptionScene}  # others are a `Scene`


def read(folder: str | Path) -> dict:
    """Return the card of a stored data set.

    Raises:
        Problem: there is none, or it is not a complete card of this version.
    """
    path = Path(folder) / CARD
    try:
        content = files.parse_json(files.read_text(path))
        _check(content)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Problem(
            f"{folder} holds no data set (no {CARD}): name its folder with --data FOLDER, or make "
            f"one with: drawbench make-data cluttered --out {folder}"
        ) from error
    except OSError as error:
        raise Problem(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Problem(
            f"{path} is not a data set's card ({reason(error)}): make the data set again with "
            "--force, or name another folder"
        ) from error
    return content


def settings(folder: str | Path) -> dict[str, Any]:
    """Return the settings of the configuration that a stored data set was made with.

    Raises:
        Problem: as :func:`read`.
    """
    content = read(folder)
    return {**content["recipe"], "source": content["source"], "data_seed": content["seed"]}


def recipe_of(content: dict) -> Recipe:
    """Return the recipe of a card; raise TypeError or ValueError if it is none."""
    return RECIPES.get(content["dataset"], Scene)(**content["recipe"])


def layout_of(content: dict, split: str) -> dict[str, Layout]:
    """Return type and shape of each array, as the card promises them."""
    return recipe_of(content).layout(content["counts"][split])


def _check(content: Any) -> None:
    """Raise ValueError, TypeError or KeyError if a card lacks what reading relies on."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"its format is not '{FORMAT}'")
    if content["version"] != VERSION:
        raise ValueError(f"its version is {content['version']}, this drawbench reads {VERSION}")
    if not all(isinstance(content[name], dict) for name in ("recipe", "counts", "sha256")):
        raise TypeError("recipe, counts and sha256 must be tables")
    texts = [content[name] for name in ("dataset", "source", "command")]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("names and commands must be text")
    recipe = content["recipe"]
    parts = RECIPES.get(content["dataset"], Scene).parts  # type: ignore[attr-defined]
    counts = [content["counts"][part] for part in parts]
    if not all(type(number) is int for number in (*recipe.values(), *counts)) or min(counts) < 1:
        raise ValueError("sizes and counts must be whole numbers, counts 1 or more")
    if asdict(recipe_of(content)) != recipe:  # type: ignore[call-overload]
        raise ValueError("its recipe is not complete")
    if not all(isinstance(content["sha256"][f"{part}.npz"], str) for part in parts):
        raise TypeError("hashes must be text")
    if set(content) - {OWN_HASH} != FIELDS:
        raise ValueError("it has other fields than a card")
    # Cards of earlier versions have no hash of their own.
    if OWN_HASH in content and content[OWN_HASH] != own_hash(content):
        raise ValueError("its content does not match its own SHA-256")


def own_hash(content: dict) -> str:
    """Return the SHA-256 of a card without its own hash."""
    fields = {name: value for name, value in content.items() if name != OWN_HASH}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
