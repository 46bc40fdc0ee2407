"""Two other ways to read a patch: an affine map with bilinear interpolation, and hard crops at
several scales.

They replace :func:`drawbench.attention.read` in the glimpse network, to measure what the Gaussian
grid is worth. Pure functions; symbols as there: B images, C channels, H rows, W columns, N the side
of the patch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from drawbench.attention import CENTRE_LIMIT, autocast_disabled, constants, widen


def affine_read(images: Tensor, transforms: Tensor, patch: int, supersample: int = 1) -> Tensor:
    """Read a patch through an affine map (Jaderberg et al. 2015, Spatial Transformer Networks,
    equations 1 and 5).

    The point (x, y) of the patch, both from -1 to 1 from edge to edge, is read at ``theta (x, y,
    1)`` of the image, in the same units, by bilinear interpolation; beyond its edge the image is 0.
    The identity reads an image of N x N pixels as it is. With one sample per number nothing is
    averaged: a patch that is coarser than the image aliases, for it sees only the four pixels
    around each of its points. With ``s`` a number is the mean of ``s x s`` samples spread evenly
    over its cell, which is a box filter as wide as the cell.

    Args:
        images: (B, C, H, W).
        transforms: theta, (B, 2, 3). Half precision is widened to float32.
        patch: N.
        supersample: s, samples per number along each side.

    Returns:
        (B, C, N, N).
    """
    theta, side = widen(transforms), patch * supersample
    # As F.affine_grid, which multiplies a matrix per point and takes longer than the sampling.
    along = (2 * torch.arange(side, dtype=theta.dtype, device=theta.device) + 1) / side - 1
    rows = theta[:, None, :, 1] * along[:, None] + theta[:, None, :, 2]  # (B, side, 2)
    columns = theta[:, None, :, 0] * along[:, None]
    grid = rows[:, :, None] + columns[:, None]
    with autocast_disabled(images.device):
        samples = F.grid_sample(
            images.to(theta.dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )
        return samples if supersample == 1 else F.avg_pool2d(samples, supersample)


def first_pixels(places: Tensor, height: int, width: int, side: int) -> Tensor:
    """Return the first column and row of squares that lie on the whole pixels nearest to a place.

    Args:
        places: (..., 2), x and y of the centre, -1 to 1 as a window's
            (:func:`drawbench.attention.window`); any value is allowed.
        height, width: of the image, pixels.
        side: of the square, pixels.

    Returns:
        int64 (..., 2), x and y numbered from 0; negative before the image.
    """
    limited = places.detach().float().clamp(-CENTRE_LIMIT, CENTRE_LIMIT)
    size = constants((width, height), limited)
    centre = (size + 1) / 2 * (limited + 1)  # pixels, numbered from 1
    return torch.floor(centre - (side - 1) / 2 + 0.5).long() - 1


def crops(images: Tensor, places: Tensor, patch: int, scales: int) -> Tensor:
    """Crop squares around one place, each twice as wide as the one before, and shrink all of them
    to N x N numbers.

    The retina of Mnih et al. 2014 (Recurrent Models of Visual Attention), section 3.1: square ``s =
    0, 1, ...`` is ``N 2^s`` pixels wide, and each of its numbers is the mean of ``2^s x 2^s``
    pixels; beyond its edge the image is 0. No gradient flows to the place: this is hard attention.

    Args:
        images: (B, C, H, W).
        places: (B, 2), see :func:`first_pixels`.
        patch: N.
        scales: S, number of squares.

    Returns:
        (B, S, C, N, N), the narrowest square first.
    """
    height, width = images.shape[-2:]
    # One more line of zeros on each axis, which stands for all lines beyond the edge.
    pixels, squares = F.pad(images, (0, 1, 0, 1)).permute(0, 2, 3, 1), []
    for box in (1 << scale for scale in range(scales)):
        first = first_pixels(places, height, width, patch * box)
        rows = _boxes(pixels, first[:, 1], patch, box)  # (B, N, W + 1, C)
        square = _boxes(rows.transpose(1, 2), first[:, 0], patch, box)
        squares.append(square.permute(0, 3, 2, 1))
    return torch.stack(squares, dim=1)


def _boxes(lines: Tensor, first: Tensor, count: int, box: int) -> Tensor:
    """Average ``box`` lines at a time, ``count`` times, from line ``first`` (B,) on: (B, L + 1, K,
    C) to (B, count, K, C). The last line is that beyond the edge.
    """
    batch, beyond = lines.shape[0], lines.shape[1] - 1
    numbers = first[:, None] + torch.arange(count * box, device=lines.device)
    numbers = numbers.where((numbers >= 0) & (numbers < beyond), beyond)
    numbers = numbers + (beyond + 1) * torch.arange(batch, device=lines.device)[:, None]
    picked = lines.flatten(0, 1).index_select(0, numbers.flatten())  # faster than indexing twice
    return picked.unflatten(0, (batch, count, box)).mean(dim=2)
