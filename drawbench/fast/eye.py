"""The convolutional eye of :class:`drawbench.models.glimpses.EyeGlimpse`, by hand.

Its first layer sees one channel in 3x3 pixels, too little for a matrix product, so it is done in C.
Its second layer is one product per look over all places of all images, and one for the gradient of
its weight over all looks.

Symbols: B images, C channels, N the side of a patch, M = (N + 1) / 2 that of the second layer's
output, F and G the features of the first and of the second layer, T looks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from drawbench.fast.native.build import VECTOR_BYTES, Kernels, addresses
from drawbench.fast.native.parts import Joined, all_of, repeated, weight_gradient
from drawbench.models.glimpses import EyeGlimpse

_LAYERS = {
    "kernel_size": (3, 3), "padding": (1, 1), "dilation": (1, 1), "groups": 1,
    "padding_mode": "zeros",
}  # fmt: skip
_LANES = VECTOR_BYTES // 4  # features come in whole vectors


def has_these_layers(eye: EyeGlimpse) -> bool:
    """Return whether the eye's layers are those that are done here."""
    return all(
        layer.stride == stride
        and layer.out_channels % _LANES == 0
        and all(getattr(layer, name) == value for name, value in _LAYERS.items())
        for layer, stride in ((eye.first, (1, 1)), (eye.second, (2, 2)))
    )


class EyeWeights(NamedTuple):
    """The weights of an eye, as the kernels and products need them; or their gradients, or which
    parameters they join.
    """

    first: Any  #: (9 C, F)
    first_bias: Any  #: (F, 1)
    second: Any  #: (G, 9 F)
    second_bias: Any  #: (G, 1)


def _layer(name: str, view: Callable[[Tensor], Tensor]) -> Joined:
    return Joined([(f"glimpse.{name}", view)])


JOINED = EyeWeights(
    first=_layer("first.weight", lambda weight: weight.flatten(1).t()),
    first_bias=_layer("first.bias", all_of),
    second=_layer("second.weight", lambda weight: weight.permute(0, 2, 3, 1)),
    second_bias=_layer("second.bias", all_of),
)  #: by the names of the model's parameters


class Eye:
    """What T looks of an eye keep for the backward pass.

    Args:
        weights: the second layer's in the dtype of products.
        shape: of the patches, (B, C, N).
        steps: T.
        keep: whether a backward pass will follow.
    """

    def __init__(
        self,
        native: Kernels,
        weights: EyeWeights,
        shape: tuple[int, int, int],
        steps: int,
        keep: bool,
    ):
        batch, channels, patch = shape
        self.native, self.weights, self.places = native, weights, ((patch + 1) // 2) ** 2
        self.second, outputs = weights.second, len(weights.second)
        self.rounded = int(self.second.dtype == torch.bfloat16)
        self.first = (batch, channels, patch, len(weights.first_bias), self.rounded)
        self.answer = (batch, self.places, outputs, self.rounded)
        size = batch * self.places, self.second.shape[1]
        self.columns = repeated(self.second.new_empty(steps if keep else 1, *size), steps)
        self.at_columns = addresses(self.columns, steps)
        self.sums = self.second.new_empty(batch * self.places, outputs)

    def forward(self, t: int, patches: int, row: int, row_stride: int) -> None:
        """Look at the patches (B, C N N) of step t; put what is seen at ``row``, place by place."""
        first, first_bias, _, second_bias = (weight.data_ptr() for weight in self.weights)
        self.native.eye_forward(*self.first, patches, first, first_bias, self.at_columns[t])
        torch.mm(self.columns[t], self.second.t(), out=self.sums)
        at_sums = self.sums.data_ptr()
        self.native.eye_answer(*self.answer, at_sums, second_bias, row, row_stride)

    def begin_backward(self) -> None:
        """Make room for the gradients."""
        weights, (steps, rows, _) = self.weights, self.columns.shape
        self.into = EyeWeights(*(torch.zeros_like(one) for one in weights))
        self.into_columns = torch.empty_like(self.columns[0])
        self.into_sums = self.second.new_empty(steps, rows, len(self.second))

    def backward(self, t, patches: int, row: int, row_stride: int, into: int, stride: int) -> None:
        """Add the gradient of the patches to row ``into``, from that of what was seen, behind it.

        Args:
            row, row_stride: as of :meth:`forward`.
            into, stride: the gradient of ``[patch, what was seen]``.
        """
        into_first, into_first_bias, _, into_second_bias = (one.data_ptr() for one in self.into)
        into_sums, size = self.into_sums[t], self.second.element_size()
        _, channels, patch, *_ = self.first
        self.native.eye_answer_backward(
            *self.answer, row, row_stride, into + channels * patch**2 * size, stride,
            into_sums.data_ptr(), into_second_bias,
        )  # fmt: skip
        torch.mm(into_sums, self.second, out=self.into_columns)
        self.native.eye_backward(
            *self.first, patches, self.weights.first.data_ptr(), self.at_columns[t],
            self.into_columns.data_ptr(), into_first, into_first_bias, into, stride,
        )  # fmt: skip

    def into_weights(self) -> EyeWeights:
        """Return the gradients of the weights."""
        return self.into._replace(second=weight_gradient(self.into_sums, self.columns))
