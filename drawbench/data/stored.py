"""Generated data sets on disk: a folder of three npz files and a card that describes them.

::

    cluttered-100x100-8-mnist/
        train.npz  validation.npz  test.npz
            images  uint8 (N, H, W)
            labels  uint8 (N,), or (N, digits) where there are several
            boxes   int16 (N, digits, 4): top, left, height, width in pixels
        card.json   recipe, source, seed, counts, SHA-256 of each file, version
        croissant.json  the same in the Croissant format, for search engines and hubs

What the files hold is up to the recipe (:class:`drawbench.data.cards.Recipe`): captioned scenes
have an array ``captions`` and a fourth file ``held_out.npz``.

The card is written last and removed first, so a folder with a card is complete. Plain
``numpy.load`` reads the files. :mod:`drawbench.data.making` writes them.
"""

import hashlib
import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from drawbench import files
from drawbench.data import cards
from drawbench.data.digits import Source
from drawbench.data.scenes import Layout
from drawbench.errors import Problem, reason


class Scenes(NamedTuple):
    """One part of a stored data set as arrays, shaped as in the module."""

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    card: dict  #: of the whole set
    captions: np.ndarray | None = None  #: uint8 (N, 12), numbers of words


def verified(folder: str | Path, dataset: str, expected: Any, source: Source) -> dict:
    """Return the card of a stored data set whose files were compared with it.

    Args:
        dataset: a name in :data:`drawbench.data.cards.RECIPES`, or any other for scenes of digits.
        expected: settings of the data set; those among :func:`drawbench.data.cards.settings` must
            agree.
        source: the digits that it must have been made of.

    Raises:
        Problem: as :func:`drawbench.data.cards.read`; the set is damaged, or another one.
    """
    content = cards.read(folder)
    kinds = {content["dataset"], dataset} & cards.RECIPES.keys()
    if kinds and content["dataset"] != dataset:
        task = "generate" if content["dataset"] in cards.RECIPES else "classify"
        raise Problem(
            f"the data set in {folder} is {content['dataset']}, not {dataset}: train on it with "
            f"drawbench {task} --data {folder}"
        )
    for name, value in cards.settings(folder).items():
        wanted = getattr(expected, name, value)
        if wanted not in (value, "auto"):
            raise Problem(
                f"the data set in {folder} has {name} {value}, but the settings say {wanted}; "
                "name the right folder with --data FOLDER"
            )
    if content["source_sha256"] != source.sha256:
        raise Problem(
            f"the data set in {folder} was made of other digits than the {source.name} found here: "
            "make it again, or give their folder with --sources DIR"
        )
    for split in cards.recipe_of(content).parts:
        check_file(Path(folder), content, split)
    return content


def load(folder: str | Path, split: str, verify: bool = True) -> Scenes:
    """Read one part of a stored data set.

    Args:
        folder: of the data set.
        split: ``train``, ``validation`` or ``test``, or another part of the recipe.
        verify: compare the file's SHA-256 with the card. Types, shapes and ranges are always
            checked.

    Raises:
        Problem: no such data set; a file that is missing, damaged, or not what the card says.
    """
    content = cards.read(folder)
    path, layout = Path(folder) / f"{split}.npz", cards.layout_of(content, split)
    if verify:
        check_file(Path(folder), content, split)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {
                name: _read_array(archive, name, expected) for name, expected in layout.items()
            }
        cards.recipe_of(content).check(arrays)
    # a broken file makes zipfile and zlib raise nearly anything: RuntimeError, zlib.error ...
    except Exception as error:
        raise Problem(
            f"{path} is damaged ({reason(error)}): make the data set again with "
            f"'{content['command']} --force'"
        ) from error
    return Scenes(**arrays, card=content)


def check_file(folder: Path, content: dict, split: str) -> None:
    """Check that a part's file is there with the SHA-256 that the card gives."""
    path, layout = folder / f"{split}.npz", cards.layout_of(content, split).values()
    expected = content["sha256"][path.name]
    limit = (1 << 20) + sum(2 * dtype.itemsize * math.prod(shape) for dtype, shape in layout)
    try:
        size = files.plain(path).stat().st_size
        # a file of any size would take minutes
        digest = sha256(path) if size <= limit else f"not computed for {size:,} bytes"
    except OSError as error:
        raise Problem(
            f"{path} cannot be read ({error.strerror or error}): {_again(folder)}"
        ) from error
    if digest != expected:
        raise Problem(
            f"{path} is damaged, its SHA-256 is {digest} where the card says {expected}: "
            f"{_again(folder)}"
        )


def _again(folder: Path) -> str:
    return f"make the data set again with make-data --out {folder} --force, or remove the folder"


def sha256(path: Path) -> str:
    with files.plain(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_array(archive: zipfile.ZipFile, name: str, expected: Layout) -> np.ndarray:
    def check(*actual: Any) -> None:
        if actual != expected:
            raise ValueError(
                f"{name} is {actual[0]} {actual[1]}, the card says {expected[0]} {expected[1]}"
            )

    return files.read_array(archive, name, check)
