"""Two other ways to read a patch: an affine map with bilinear interpolation, and hard crops at
several scales.

They stand where :func:`drawbench.attention.read` stands in the glimpse classifier, so that one can
tell what the Gaussian grid is worth. Pure functions. Symbols as there: B images, C channels, H
rows, W columns, N the side of the patch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from drawbench.attention import CENTRE_LIMIT, unrounded


def affine_read(images: Tensor, transforms: Tensor, patch: int) -> Tensor:
    """Read a patch through an affine map (Jaderberg et al. 2015, Spatial Transformer Networks,
    equations 1 and 5).

    Pixel (x, y) of the patch, both from -1 to 1 from edge to edge, is read at ``theta (x, y, 1)``
    of the image, in the same measure, by bilinear interpolation; beyond its edge the image is 0.
    The identity reads an image of N x N pixels as it is. Nothing is averaged: a patch that is
    coarser than the image sees only the four pixels around each of its points.

    Args:
        images: (B, C, H, W).
        transforms: theta, (B, 2, 3). Half-precision numbers are widened to float32.
        patch: N.

    Returns:
        (B, C, N, N).
    """
    wide = transforms.float() if transforms.dtype in (torch.bfloat16, torch.float16) else transforms
    with unrounded(images.device):
        grid = F.affine_grid(wide, [len(images), 1, patch, patch], align_corners=False)
        return F.grid_sample(
            images.to(wide.dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )


def crops(images: Tensor, places: Tensor, patch: int, scales: int) -> Tensor:
    """Square pieces of an image around one place, each twice as wide as the one before, all shrunk
    to the same N x N numbers.

    The retina of Mnih et al. 2014 (Recurrent Models of Visual Attention), section 3.1: piece ``s =
    0, 1, ...`` is ``N 2^s`` pixels wide, and each of its numbers is the mean of ``2^s x 2^s``
    pixels. A piece lies on whole pixels, those nearest to its place; beyond its edge the image is
    0. No gradient flows to the place: this is hard attention.

    Args: images: (B, C, H, W). places: (B, 2), x and y of the centre: -1 to 1 as a window's
        (:func:`drawbench.attention.window`), any value allowed. patch: N. scales: S, number of
        pieces.

    Returns:
        (B, S, C, N, N), the narrowest piece first.
    """
    height, width = images.shape[-2:]
    size = torch.tensor([width, height], device=images.device)
    centre = (
        (size + 1) / 2 * (places.detach().float().clamp(-CENTRE_LIMIT, CENTRE_LIMIT) + 1)
    )  # pixels, numbered from 1
    pixels, pieces = images.permute(0, 2, 3, 1), []
    for box in (1 << scale for scale in range(scales)):
        first = torch.floor(centre - (patch * box - 1) / 2 + 0.5).long() - 1  # numbered from 0
        rows = _boxes(pixels, first[:, 1], patch, box)  # (B, N, W, C)
        pieces.append(_boxes(rows.transpose(1, 2), first[:, 0], patch, box).permute(0, 3, 2, 1))
    return torch.stack(pieces, dim=1)


def _boxes(lines: Tensor, first: Tensor, count: int, box: int) -> Tensor:
    """Means of ``box`` lines at a time, ``count`` of them, from line number ``first`` (B,) on: (B,
    L, K, C) to (B, count, K, C).
    """
    numbers = first[:, None] + torch.arange(count * box, device=lines.device)
    inside = (numbers >= 0) & (numbers < lines.shape[1])
    picked = lines[
        torch.arange(len(lines), device=lines.device)[:, None], numbers.clamp(0, lines.shape[1] - 1)
    ]
    return (picked * inside[:, :, None, None]).unflatten(1, (count, box)).mean(dim=2)
