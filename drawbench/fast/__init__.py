"""The same recurrences written to be fast: by hand, with C kernels, or as CUDA graphs."""

import torch
from torch import Tensor

from drawbench.fast.draw import fast_drawing
from drawbench.models import Generator
from drawbench.models.draw import Draw, Drawing


def drawing(
    model: Generator,
    images: Tensor,
    noise: Tensor,
    products: torch.dtype = torch.float32,
    segment: int | None = None,
) -> Drawing:
    """``model(images, noise)``, by the fast path where the model has one; arguments as
    :func:`fast_drawing`.
    """
    return (
        fast_drawing(model, images, noise, products, segment)
        if isinstance(model, Draw)
        else model(images, noise)
    )
