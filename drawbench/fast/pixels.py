"""The means of the pixels that a canvas stands for, in a recurrence by hand."""

from torch import Tensor

from drawbench.fast.native.build import Kernels, addresses
from drawbench.fast.native.parts import repeated


class Pixels:
    """What T steps of turning the canvas into means keep for the backward pass. The equations are
    those of ``mean_of`` in :mod:`drawbench.likelihood`.

    Args:
        canvas: (B, C, H, padded), which the steps add to in place.
        log_scale: (C, 1) for logistic pixels; None for Bernoulli pixels.
        keep: whether a backward pass will follow.
    """

    def __init__(
        self, native: Kernels, canvas: Tensor, log_scale: Tensor | None, steps: int, keep: bool
    ):
        self.native, self.canvas, self.log_scale = native, canvas, log_scale
        # Means, and for logistic pixels their derivatives by the canvas and by the log scale.
        places = (steps if keep else 1, 1 if log_scale is None else 3)
        self.kept = repeated(canvas.new_empty(*places, *canvas.shape), steps)
        self.at = addresses(self.kept, steps)
        self.each = canvas.nbytes
        batch, channels, *plane = canvas.shape
        self.size = (batch, channels, plane[0] * plane[1])

    def forward(self, t: int) -> int:
        """Compute the means before step t; return their address."""
        at, canvas = self.at[t], self.canvas.data_ptr()
        if self.log_scale is None:
            self.native.bernoulli_forward(self.canvas.numel(), canvas, at)
        else:
            slopes, stretches = at + self.each, at + 2 * self.each
            scales = self.log_scale.data_ptr()
            self.native.logistic_forward(*self.size, canvas, scales, at, slopes, stretches)
        return at

    def backward(
        self, t: int, into_means: int, into_canvas: int, into_scale: Tensor | None
    ) -> None:
        """Add to the gradients of canvas and log scale, given that of the means."""
        at = self.at[t]
        if into_scale is None:
            self.native.bernoulli_backward(self.canvas.numel(), at, into_means, into_canvas)
            return
        slopes, stretches = at + self.each, at + 2 * self.each
        self.native.logistic_backward(
            *self.size, slopes, stretches, into_means, into_canvas, into_scale.data_ptr()
        )
