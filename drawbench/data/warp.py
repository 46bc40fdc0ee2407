"""Small random distortions of digits, against overfitting to 55,000 of them in long trainings.

Simard, Steinkraus & Platt, *Best practices for convolutional neural networks applied to visual
document analysis* (ICDAR 2003) found affine and elastic distortions to be worth a factor of two on
MNIST. The papers on cluttered MNIST do not use them: they are a setting of training, off by
default, and never touch a stored file, a validation or a test image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from drawbench import streams

AFFINE = 0.15  # greatest change of an entry of the 2x2 matrix at strength 1: 9 degrees, 15% in size
ELASTIC = 1.0  # standard deviation of the displacement of a node at strength 1, pixels
NODES = 5  # on a side of the lattice whose displacements are smoothly interpolated


def warp(images: Tensor, index: Tensor, strength: float, seed: int, *name: str | int) -> Tensor:
    """Distort each image by a random linear map about its centre and a smooth random field.

    Args:
        images: uint8 (B, H, W).
        index: int64 (B,), the number of each presentation: its distortion follows from
            (seed, name, index) alone.
        strength: 0 changes nothing; at 1 a digit still looks handwritten.
        seed, name: of the distortions.

    Returns:
        uint8 (B, H, W), bilinearly sampled, black beyond the edges.
    """
    count, height, width = images.shape
    size = torch.tensor([width, height], dtype=torch.float32, device=images.device)
    numbers = streams.normals(index, 4 + 2 * NODES**2, seed, *name, "warp").float()
    # The error function of a normal number is uniform, so no rare draw turns a digit over.
    uniform = torch.erf(numbers[:, :4] / 2**0.5).view(count, 2, 2)
    linear = torch.eye(2, device=images.device) + strength * AFFINE * uniform
    grid = F.affine_grid(
        torch.cat([linear, linear.new_zeros(count, 2, 1)], dim=2),
        [count, 1, height, width],
        align_corners=False,
    )
    nodes = strength * ELASTIC * numbers[:, 4:].view(count, 2, NODES, NODES)
    field = F.interpolate(nodes, size=(height, width), mode="bicubic", align_corners=True)
    grid = grid + 2 * field.permute(0, 2, 3, 1) / size
    sampled = F.grid_sample(images[:, None].float(), grid, align_corners=False)
    return sampled[:, 0].round_().clamp_(0, 255).to(torch.uint8)
