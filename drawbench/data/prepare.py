"""Pictures of the user's own, made into images such as a classifier was trained on."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from drawbench.data import image_files
from drawbench.errors import Problem

FITS = ("pad", "crop", "stretch")
DIGITS = ("cluttered", "mnist2", "mnist")  # data sets of light digits on black
LIGHT = 128  # a border of at least this mean grey is a light background
INK = 20  # longer side of the ink of MNIST's digits, pixels


class Rules(NamedTuple):
    """How pictures become images (C, H, W)."""

    size: tuple[int, int, int]  #: channels, height and width of the images
    fit: str  #: one of `FITS`
    side: int | None  #: of ``pad``: the longer side that pictures get; None: as :func:`rules` says
    invert: bool | None  #: None: where the border of a picture is light
    digit: bool  #: whether a picture larger than the image is taken for a single digit


def rules(
    settings: Any, size: tuple[int, int, int], fit: str | None, side: int | None, invert: str
) -> Rules:
    """Return the rules that suit the data set that a classifier was trained on.

    Networks for digits expect them light on black, so pictures are padded. A smaller one keeps its
    size; a larger one is taken for a single digit, which is cut out and reduced to 20 pixels, as
    MNIST's digits were. For all others the centre of a picture is cut out and resized, as in
    training.

    Args:
        settings: the section ``data`` of the run's configuration.
        size: channels, height and width of its images.
        fit, side: as in :class:`Rules`, or None for what suits the data set.
        invert: ``auto``, ``yes`` or ``no``.

    Raises:
        Problem: a side that does not go with the fit or the images.
    """
    digits = settings.dataset in DIGITS
    fit = fit or ("pad" if digits or side else "crop")
    if side is not None and fit != "pad":
        raise Problem(f"--side goes with --fit pad; --fit {fit} fills the image")
    if side is not None and side > min(size[1:]):
        raise Problem(f"--side {side} is larger than the images of {size[2]}x{size[1]} pixels")
    inverts = {"yes": True, "no": False, "auto": None if digits else False}
    return Rules(size, fit, side, inverts[invert], digits)


def prepare(path: Path, rules: Rules) -> tuple[np.ndarray, list[str]]:
    """Read a picture as an image of the size that the rules say.

    Returns:
        The image, uint8 (C, H, W), and what was done to the picture, in words.

    Raises:
        Unusable: it cannot be decoded.
    """
    pixels = image_files.read(path)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    channels, height, width = rules.size
    mode, steps = "L" if channels == 1 else "RGB", []
    if picture.mode != mode:
        picture = picture.convert(mode)
        steps.append("made grey" if mode == "L" else "given three equal channels")
    if _has_light_border(picture) if rules.invert is None else rules.invert:
        picture = ImageOps.invert(picture)
        steps.append("inverted")
    if rules.fit == "pad":
        picture = _padded(picture, rules, steps)
    elif picture.size != (width, height):
        steps.append(f"{'centre cut out and ' if rules.fit == 'crop' else ''}resized")
        bicubic = Image.Resampling.BICUBIC
        picture = (
            ImageOps.fit(picture, (width, height), bicubic)
            if rules.fit == "crop"
            else picture.resize((width, height), bicubic)
        )
    array = np.array(picture, dtype=np.uint8)
    return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1)), steps


def _has_light_border(picture: Image.Image) -> bool:
    grey = np.asarray(picture.convert("L"), dtype=float)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return bool(border.mean() >= LIGHT)


def _ink(picture: Image.Image) -> Image.Image:
    """Cut out what is light on a dark background, which becomes black."""
    pixels = np.asarray(picture, dtype=float)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    pixels = np.clip(pixels - np.median(border), 0, None)
    pixels *= 255 / max(pixels.max(), 1.0)
    rows, columns = (np.flatnonzero((pixels >= LIGHT).any(axis)) for axis in (1, 0))
    if len(rows) == 0:  # one grey
        return picture
    left, top, right, bottom = map(int, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return Image.fromarray(np.rint(pixels).astype(np.uint8)).crop((left, top, right, bottom))


def _padded(picture: Image.Image, rules: Rules, steps: list[str]) -> Image.Image:
    """Return a picture in the middle of a black image, its longer side as the rules say."""
    _, height, width = rules.size
    longer, limit = max(picture.size), min(height, width)
    side = rules.side
    if side is None and (picture.width > width or picture.height > height):
        side = limit
        if rules.digit:
            picture, side = _ink(picture), min(INK, limit)
            longer = max(picture.size)
            steps.append("its digit cut out")
    if side is not None and side != longer:
        shape = [max(1, round(length * side / longer)) for length in picture.size]
        picture = picture.resize(shape, Image.Resampling.BICUBIC)
        steps.append(f"{'reduced' if side < longer else 'enlarged'} to {side} pixels")
    if picture.size == (width, height):
        return picture
    image = Image.new(picture.mode, (width, height))
    image.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    steps.append(f"padded to {width}x{height}")
    return image
