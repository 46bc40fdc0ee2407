"""What an answer costs: parameters, pixels and multiply-adds."""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


class Cost(NamedTuple):
    """The cost of classifying one image."""

    parameters: int
    #: numbers taken from the image; all of its pixels if the model has no ``pixels_read``
    pixels_read: int
    #: of all matrix products and convolutions; element-wise work and interpolation are not counted
    multiply_adds: int


def cost(model: nn.Module, height: int, width: int, channels: int = 1) -> Cost:
    """Measure the cost of classifying one image of this size by running the model on a black one.

    Operations are counted as they are called, by
    :class:`torch.utils.flop_counter.FlopCounterMode`, which counts a multiply-add as two.
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
    parameters = sum(weight.numel() for weight in model.parameters())
    pixels = getattr(model, "pixels_read", channels * height * width)
    return Cost(parameters, pixels, counter.get_total_flops() // 2)
