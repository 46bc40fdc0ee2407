"""What the recurrences share: storage for the kernels, and the calls to them."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from drawbench.fast.native.build import Kernels, Map, addresses, room


def repeated(tensor: Tensor, count: int) -> Tensor:
    """Return a tensor (count, ...) as it is, or (1, ...) as if it were there ``count`` times.

    Without gradients nothing is needed again, so all steps can use one place, which stays in the
    core's cache.
    """
    return tensor.expand(count, *tensor.shape[1:])


class Lstm:
    """What T steps of an LSTM keep for the backward pass, or one step if nothing is kept."""

    def __init__(
        self, native: Kernels, cell: Tensor, steps: int, matmul_dtype: torch.dtype, keep: bool
    ):
        batch, units = cell.shape
        places = steps if keep else 1
        self.native, self.rounded = native, matmul_dtype == torch.bfloat16
        self.size = (batch, units, int(self.rounded))
        gates = repeated(cell.new_empty(places, batch, 4 * units), steps)
        # Before their nonlinearity gates are a product, afterwards reals: in the same place where
        # both have one type.
        self.sums = cell.new_empty(batch, 4 * units, dtype=matmul_dtype) if self.rounded else None
        self.gates = gates.unbind()
        self.cells = cell.new_empty(places + keep, batch, units)
        self.cells = repeated(self.cells, steps + 1)
        self.cells[0] = cell
        self.squashed = repeated(cell.new_empty(places, batch, units), steps)
        self.at_gates, self.at_cells, self.at_squashed = (
            addresses(tensor, len(tensor)) for tensor in (gates, self.cells, self.squashed)
        )
        self.keep = gates

    def step(
        self,
        t: int,
        inputs: Tensor,
        weight: Tensor,
        hidden,
        hidden_stride,
        row,
        row_stride,
        constant=0,
    ):
        """Take one step from the input (B, K): the product, the gates, and the new state to the
        addresses ``hidden`` and ``row``.
        """
        sums = torch.mm(inputs, weight, out=self.gates[t] if self.sums is None else self.sums)
        self.native.lstm_forward(
            *self.size, sums.data_ptr(), constant, self.at_gates[t], self.at_cells[t],
            self.at_cells[t + 1], self.at_squashed[t], hidden, hidden_stride, row, row_stride,
        )  # fmt: skip

    def backward(
        self, t: int, full: int, sources: list[tuple[int, int]], into_cell: Tensor, into_sums: int
    ) -> None:
        """Compute the gradient of the sums of step t from that of its new state; arguments as of
        the kernel ``lstm_backward``.
        """
        padding = [(0, 0)] * (3 - len(sources))
        self.native.lstm_backward(
            *self.size, self.at_gates[t], self.at_cells[t], self.at_squashed[t], full, *(number for
            source in (*sources, *padding) for number in source), into_cell.data_ptr(), into_sums,
        )  # fmt: skip


class Side:
    """What reading or writing through windows keeps for the backward pass: the filters of each of
    some states, and their products.

    Args:
        size: of the images, (height, width).
        planes: read or written through one window: channels, twice where image and error are read.
        count, batch: states, and images in the share.
        keep: whether a backward pass will follow; otherwise all states share one place.
        bounded, clip: of the window map and of its gradient, as in the models.
        whole: images over which the loss is a mean, not only those of the share.
    """

    def __init__(
        self, size, planes, patch, count, batch, *, keep, bounded, clip, whole, dtype, device
    ):
        kind = {"dtype": dtype, "device": device}
        self.map = Map(*size, patch, bounded, 0.0 if clip is None else clip / whole, dtype)
        n = count if keep else 1
        x, y = (room(n, batch, patch, length, **kind) for length in reversed(size))
        across = room(n, batch, planes, patch, size[1], **kind)
        patches = torch.empty(n, batch, planes * patch**2, **kind)
        self.tensors = (x, y, across, patches)
        self.addresses = [addresses(repeated(tensor, count), count) for tensor in self.tensors]

    def at(self, index: int) -> tuple[int, ...]:
        """Return the addresses of one state: filters along x and y, products across, patches."""
        return tuple(kept[index] for kept in self.addresses)


def weight_gradient(into: Tensor, inputs: Tensor) -> Tensor:
    """Return the gradient (outputs, inputs) of a weight from (T, B, outputs) and (T, B, inputs), in
    the order of factors that is faster for their dtype.
    """
    into, inputs = into.flatten(0, 1), inputs.flatten(0, 1)
    return into.t() @ inputs if into.dtype == torch.bfloat16 else (inputs.t() @ into).t()


Piece = tuple[str, Callable[[Tensor], Tensor]]  # a parameter, and the view of it that is meant


def all_of(parameter: Tensor) -> Tensor:
    """Return a weight (outputs, inputs) itself, or a bias as a column."""
    return parameter if parameter.dim() > 1 else parameter[:, None]


class Joined:
    """Parameters joined to the matrix that a product takes, and its gradient taken apart.

    Each copies once, rounding or widening on the way. Autograd would copy three times: to join, to
    round, and to make the parts of the gradient contiguous.

    Args:
        rows: the pieces that stand side by side, for each of the parts one above the other. Views
            have shape (outputs, inputs), or (outputs, ...) for inputs in another order.
    """

    def __init__(self, *rows: Sequence[Piece]):
        self.rows = rows

    def pack(self, parameters: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Return the matrix in a dtype."""
        sizes = [[view(parameters[name]).shape for name, view in row] for row in self.rows]
        width = sum(shape[1:].numel() for shape in sizes[0])
        first = parameters[self.rows[0][0][0]]
        matrix = first.new_empty(sum(row[0][0] for row in sizes), width, dtype=dtype)
        for part, source in self._parts(matrix, parameters):
            part.copy_(source)
        return matrix

    def unpack(self, gradients: Sequence[Tensor], into: Mapping[str, Tensor]) -> None:
        """Set the gradients of the parameters to the sum of some gradients of the matrix."""
        for number, gradient in enumerate(gradients):
            for part, target in self._parts(gradient, into):
                target.add_(part) if number else target.copy_(part)

    def _parts(self, matrix: Tensor, of: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Return each part of the matrix with what belongs there."""
        top = 0
        for row in self.rows:
            left = 0
            for name, view in row:
                piece = view(of[name])
                width, bottom = piece.shape[1:].numel(), top + len(piece)
                part = matrix[top:bottom, left : left + width]
                yield part.unflatten(1, piece.shape[1:]), piece
                left += width
            top = bottom
