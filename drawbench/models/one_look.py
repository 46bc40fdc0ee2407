"""What the networks share that look once, at the whole image."""

from typing import NamedTuple

from torch import Tensor

from drawbench.errors import Problem


class Answer(NamedTuple):
    """What a network says that looks once."""

    logits: Tensor  #: (B, 1, classes)


def check_size(images: Tensor, size: tuple[int, int]) -> None:
    """Nothing, if images (B, C, H, W) are of the one size (H, W) that a network with fully
    connected layers is made for.

    Raises:
        Problem: they are not.
    """
    if tuple(images.shape[-2:]) != size:
        height, width = images.shape[-2:]
        raise Problem(
            f"this network is made for images of {size[0]}x{size[1]} pixels, not of {height}x{width}; train one for that canvas"
        )
