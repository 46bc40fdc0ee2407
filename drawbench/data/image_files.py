"""Image files of every kind that Pillow reads, as arrays."""

import contextlib
import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from drawbench.errors import Problem, one_line, reason

# Pixels of an image file: Pillow takes 4 bytes for each, twice where it is transparent, and must
# not take a gigabyte.
MAX_PIXELS = 1 << 26

# EPS starts another program; the others are recognised but not decoded, or need other packages.
_NOT_READ = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF", "FPX", "MIC"}
_GREY = ("1", "L", "LA", "La")  # modes of Pillow; palettes count as colour
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unusable(Problem):
    """An image file that cannot be used; the message begins with its name."""


@cache
def formats() -> tuple[str, ...]:
    """Return the formats that are read, by Pillow's names for them."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _NOT_READ))


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of files that are read, such as ``.png``."""
    known = {*formats(), "MPO"}  # MPO files are opened as JPEG
    return frozenset(
        suffix for suffix, kind in Image.registered_extensions().items() if kind in known
    )


def read(path: Path, side: int | None = None) -> np.ndarray:
    """Read an image file, upright (EXIF), with transparent parts on black.

    Of an animation the first image is taken. 16-bit grey is scaled to 8 bits.

    Args:
        side: cut out the largest centred square and resize it to this side, antialiased (bicubic).

    Returns:
        uint8 (C, H, W): one channel for grey images, three for colour (palettes among them).

    Raises:
        Unusable: it cannot be decoded, has pixels in floating point, or has more than `MAX_PIXELS`
            pixels.
    """
    return read_sized(path, side)[0]


def read_sized(path: Path, side: int | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """As :func:`read`, with the width and height in the file."""
    name = one_line(str(path))
    # a link to nowhere, or a pipe, which could be read without end
    if not os.path.isfile(path):
        raise Unusable(f"{name} is not a file that can be read")
    try:
        # Pillow warns of what it can read all the same, and of large images, measured here.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Unusable(
                    f"{name} has {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}"
                )
            if side:
                # A JPEG can be decoded at a half, a quarter or an eighth of its size, much faster;
                # the rest is reduced below.
                image.draft(None, (4 * side, 4 * side))
            opaque = _opaque(_upright(image))
            pixels = np.array(_square(opaque, side) if side else opaque, dtype=np.uint8)
    except Unusable:
        raise
    except Image.DecompressionBombError as error:
        raise Unusable(f"{name} has more pixels than {MAX_PIXELS:,}") from error
    # a broken file makes Pillow raise nearly anything: SyntaxError, struct.error ...
    except Exception as error:
        told = one_line(reason(error).replace(str(path), path.name))
        raise Unusable(f"{name} cannot be decoded ({told})") from error
    channels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(channels), (width, height)


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as the camera was held; one whose EXIF cannot be read stays as it is."""
    image.load()
    turn = None
    with contextlib.suppress(Exception):
        orientation: Any = image.getexif().get(ExifTags.Base.Orientation)
        turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _opaque(image: Image.Image) -> Image.Image:
    """Convert to mode L or RGB, transparent parts on black."""
    if image.mode == "F":
        raise ValueError("pixels are floating point: convert them to 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, which Pillow's own conversion would clip at 255
        values = np.array(image, dtype=np.int32).clip(0, 65_535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    mode = "L" if image.mode in _GREY else "RGB"
    if not (image.mode.endswith(("A", "a")) or "transparency" in image.info):
        return image.convert(mode)
    layered = image if image.mode == mode + "A" else image.convert(mode + "A")
    on_black = Image.new(mode, image.size)
    on_black.paste(layered.convert(mode), mask=layered.getchannel("A"))
    return on_black


def _square(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    box = (left, top, left + short, top + short)
    return image.resize((side, side), Image.Resampling.BICUBIC, box=box)
