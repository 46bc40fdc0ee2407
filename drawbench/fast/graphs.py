"""A model's work on a GPU, recorded once and replayed: CUDA graphs.

A recurrence of 64 steps is thousands of small kernels, and a GPU waits for the host to start each.
Replayed, they start by themselves. What is recorded is the model's own forward and backward pass,
for inputs of one shape.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class _Recorded(nn.Module):
    """A model as a function from tensors to tensors, which is what can be recorded."""

    def __init__(self, model: nn.Module, matmul_dtype: torch.dtype, tensors: Callable):
        super().__init__()
        self.model, self.matmul_dtype, self.tensors = model, matmul_dtype, tensors

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        rounding, device = self.matmul_dtype == torch.bfloat16, inputs[0].device.type
        # Autocast would cache rounded weights during the recording, which a replay would not renew.
        with torch.autocast(device, torch.bfloat16, enabled=rounding, cache_enabled=False):
            return self.tensors(self.model, *inputs)


class Recorder:
    """Records what a task computes from its model, once for each shape of the inputs, and replays
    it.

    Args:
        matmul_dtype: ``torch.float32`` or ``torch.bfloat16``, dtype of the matrix products.
        tensors: computes, from a model and inputs, the tensors that the loss needs. It must read
            its inputs and the model only, and must not wait for the device.
    """

    def __init__(self, matmul_dtype: torch.dtype, tensors: Callable[..., tuple[Tensor, ...]]):
        self.matmul_dtype, self.tensors = matmul_dtype, tensors
        self.model: nn.Module | None = None
        self.recordings: dict[Any, Any] = {}

    def __call__(self, model: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return ``tensors(model, *inputs)``, with gradients to the model's parameters.

        Args:
            model: on a GPU; its parameters must remain the same tensors, as an optimizer leaves
                them. Another model (a trial run trains a copy) discards the recordings.
            inputs: on the same GPU.
        """
        if model is not self.model:
            self.model, self.recordings = model, {}
        key = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        if key not in self.recordings:
            recorded = _Recorded(model, self.matmul_dtype, self.tensors)
            zeros = tuple(torch.zeros_like(tensor) for tensor in inputs)
            # Gradients are recorded on a stream of their own and added up on the usual one, which
            # the autograd engine makes wait.
            torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
            self.recordings[key] = torch.cuda.make_graphed_callables(recorded, zeros)
        return self.recordings[key](*inputs)
