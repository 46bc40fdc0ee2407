"""Rules by which grey pixels become black and white.

A Bernoulli likelihood is one of images whose pixels are black or white, so the rule is part of the
result: values under different rules do not compare. It is part of the name of the data set.

=============  ===================================================================================
rule           pixels
=============  ===================================================================================
``static``     the published fixed binarisation of MNIST (:mod:`drawbench.data.binarised`)
``fixed``      white with probability intensity / 255, drawn once for each image from the data seed
``dynamic``    the same, drawn again at each presentation in training; validation and test as fixed
``threshold``  white from intensity 128
``intensity``  unchanged, 256 levels: a Bernoulli's cross-entropy is no likelihood of them
=============  ===================================================================================
"""

import torch
from torch import Tensor

from drawbench import streams

DRAWN = ("fixed", "dynamic")  # at random
CHUNK = 1 << 22  # pixels drawn at a time


def binarise(images: Tensor, index: Tensor, seed: int, *name: str | int) -> Tensor:
    """Make each pixel white (255) with probability intensity / 255, else black (0).

    A number ``u`` is drawn uniformly from 0..254 for each grey pixel, by counter; the pixel is
    white if ``u`` is below the intensity. So 255 stays white, 0 stays black, and a pixel depends on
    the image's index and its place alone, not on the batch or on what was drawn before.

    Args:
        images: uint8 (B, ...).
        index: int64 (B,), the number that each image is drawn by.
        seed, name: of the random numbers.

    Returns:
        uint8 of the same shape, 0 or 255.
    """
    flat = images.flatten(1)
    binary = torch.where(flat == 255, flat, 0)
    rows = max(1, CHUNK // max(1, flat.shape[1]))
    for first in range(0, len(flat), rows):
        some = flat[first : first + rows]
        row, column = _grey(some)
        counter = index[first + row] * flat.shape[1] + column
        uniform = streams.integers(counter, [255], seed, *name, "binarise")[:, 0]
        binary[first + row, column] = (uniform < some[row, column]).to(torch.uint8) * 255
    return binary.view(images.shape)


def _grey(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows and columns of the grey pixels of (R, S), which are few.

    On a GPU all pixels are returned: finding the grey ones would mean waiting for it, and 0 and 255
    come out unchanged.
    """
    if not pixels.is_cuda:
        return ((pixels > 0) & (pixels < 255)).nonzero(as_tuple=True)  # type: ignore[return-value]
    rows, columns = (torch.arange(size, device=pixels.device) for size in pixels.shape)
    return rows.repeat_interleave(len(columns)), columns.repeat(len(rows))


def apply(rule: str | None, images: Tensor, index: Tensor, seed: int, *name: str | int) -> Tensor:
    """Apply a rule to grey images, uint8 (B, ...); arguments as of :func:`binarise`.

    ``fixed`` and ``dynamic`` do the same to an image; what differs is its index and the seed.
    """
    if rule in DRAWN:
        return binarise(images, index, seed, *name)
    return (images >= 128).to(torch.uint8) * 255 if rule == "threshold" else images


def describe(what: str, rule: str | None, data_seed: int) -> str:
    """Return a sentence on what the images are and how their pixels came about."""
    drawn = f"pixels white with probability intensity/255, drawn once by seed {data_seed}"
    how = {
        "fixed": drawn + (", not the published binarisation" if what == "MNIST" else ""),
        "dynamic": f"{drawn} in validation and test, drawn again at each presentation in training",
        "threshold": "pixels white from intensity 128 of 255",
        "intensity": "pixels unchanged, 256 levels",
    }
    return f"{what}; {how[rule]}" if rule in how else what


def named(name: str, data_seed: int) -> str:
    """Return a name for one draw: another data seed is another test set; seed 0 is not named."""
    return name + (f"-seed{data_seed}" if data_seed else "")
