"""A generator's or classifier's work on a GPU, recorded once and played back: CUDA graphs.

A recurrence of 64 steps is thousands of small kernels, and a GPU waits for the host to start each.
Played back, they start by themselves. What is played back is the reference model, forward and
backward, for images of one shape.
"""

from typing import Any

import torch
from torch import Tensor, nn

from drawbench.models.draw import Drawing


class _Tensors(nn.Module):
    """A model that gives nothing but the tensors that a loss needs, which is what can be recorded."""

    def __init__(self, model: nn.Module, products: torch.dtype):
        super().__init__()
        self.model, self.products = model, products

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        rounded = self.products == torch.bfloat16
        # What autocast would keep of a recording would not be there when it is played back.
        with torch.autocast(
            inputs[0].device.type, torch.bfloat16, enabled=rounded, cache_enabled=False
        ):
            made = self.model(*inputs)
        return (made.logits, made.mu, made.log_sigma) if len(inputs) == 2 else (made.logits,)


class Graphed:
    """A model to be called in training with images, and noise if it is a generator; recorded at the
    first call for each shape.

    Args: model: on a GPU; its parameters must stay the tensors that they are, as an optimizer
        leaves them. products: ``torch.float32`` or ``torch.bfloat16``, the dtype of the matrix
        products with weights.
    """

    def __init__(self, model: nn.Module, products: torch.dtype = torch.float32):
        self.tensors = _Tensors(model, products)
        self.recorded: dict[Any, Any] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        shape = tuple(tensor.shape for tensor in inputs)
        if shape not in self.recorded:
            self.recorded[shape] = torch.cuda.make_graphed_callables(
                self.tensors, tuple(torch.zeros_like(tensor) for tensor in inputs)
            )
        return self.recorded[shape](*inputs)

    def drawing(self, images: Tensor, noise: Tensor) -> Drawing:
        """``model(images, noise)`` of a generator, without windows and canvases."""
        logits, mu, log_sigma = self(images, noise)
        return Drawing(logits.float(), mu.float(), log_sigma.float())

    def logits(self, images: Tensor) -> Tensor:
        """``model(images).logits`` of a classifier."""
        return self(images)[0].float()


class Recorder:
    """The recording of the model that a task trains at the time: a trial run trains a copy."""

    def __init__(self, products: torch.dtype):
        self.products = products
        self.latest: Graphed | None = None

    def of(self, model: nn.Module) -> Graphed:
        if self.latest is None or self.latest.tensors.model is not model:
            self.latest = Graphed(model, self.products)
        return self.latest
