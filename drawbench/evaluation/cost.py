"""What an answer costs, beside its error: parameters, pixels and multiply-adds."""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


class Cost(NamedTuple):
    """Of one image."""

    parameters: int
    #: numbers taken from the image; all of its pixels where a model does not say ``pixels_read``
    pixels_read: int
    #: of all matrix products and convolutions; element-wise work and interpolation are not counted
    multiply_adds: int


def cost(model: nn.Module, height: int, width: int, channels: int = 1) -> Cost:
    """The cost of an answer of a classifier about one image of this size, by running it on a black
    one.

    The operations are counted as they are called
    (:class:`torch.utils.flop_counter.FlopCounterMode`, which counts a multiplication and an
    addition as two).
    """
    training = model.training
    parameter = next(model.parameters(), torch.empty(0))
    image = torch.zeros(1, channels, height, width, device=parameter.device, dtype=parameter.dtype)
    model.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            model(image)
    finally:
        model.train(training)
    pixels = getattr(model, "pixels_read", channels * height * width)
    return Cost(
        sum(weight.numel() for weight in model.parameters()), pixels, counter.get_total_flops() // 2
    )
