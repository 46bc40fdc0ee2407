"""Inputs and weights by formula rather than by seed, and exact integrals, for tests."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.func import functional_call


def waves(*shape: int, pace: float = 0.7) -> Tensor:
    """Return float64 numbers in [-1, 1] without pattern or randomness."""
    count = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return torch.sin(pace * count**1.3).view(shape)


def set_weights(model: nn.Module) -> nn.Module:
    """Convert a model to float64 and set every parameter, the start state included."""
    model.double()
    with torch.no_grad():
        for n, parameter in enumerate(model.parameters()):
            parameter.copy_(0.6 * waves(*parameter.shape, pace=0.5 + 0.1 * n))
    return model


def zero(*parts: nn.Module) -> None:
    """Set all parameters of some modules to zero."""
    with torch.no_grad():
        for part in parts:
            for parameter in part.parameters():
                parameter.zero_()


def check_gradients(model: nn.Module, inputs: tuple, output: Callable[[Any], Tensor]) -> None:
    """Check the gradient of an output of the model's record with respect to every parameter."""
    weights = {
        name: one.detach().clone().requires_grad_() for name, one in model.named_parameters()
    }

    def values(*parameters: Tensor) -> Tensor:
        named = dict(zip(weights, parameters, strict=True))
        return output(functional_call(model, named, inputs))

    assert gradcheck(values, tuple(weights.values()))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def linear(weights: dict[str, Tensor], name: str, inputs: list[float]) -> list[float]:
    """Multiply by a matrix and add a bias, one number at a time."""
    rows, bias = weights[f"{name}.weight"].tolist(), weights[f"{name}.bias"].tolist()
    products = (sum(w * x for w, x in zip(row, inputs, strict=True)) for row in rows)
    return [product + b for product, b in zip(products, bias, strict=True)]


def lstm(
    weights: dict[str, Tensor], name: str, inputs: list[float], hidden: list, cell: list
) -> tuple[list[float], list[float]]:
    """Take one step, gates i, f, g, o in torch's order: ``c = f c + i g``, ``h = o tanh(c)``."""

    def product(side: str, values: list[float]) -> list[float]:
        part = {f"{side}.{kind}": weights[f"{name}.{kind}_{side}"] for kind in ("weight", "bias")}
        return linear(part, side, values)

    sums = [a + b for a, b in zip(product("ih", inputs), product("hh", hidden), strict=True)]
    size, new_hidden, new_cell = len(hidden), [], []
    for unit in range(size):
        i, f, g, o = sums[unit::size]
        new_cell.append(sigmoid(f) * cell[unit] + sigmoid(i) * math.tanh(g))
        new_hidden.append(sigmoid(o) * math.tanh(new_cell[-1]))
    return new_hidden, new_cell


def squash(numbers: list[float]) -> list[float]:
    """Squash the five numbers of a window."""
    middles, radii = (0, 0, 3, 0, 0), (1.2, 1.2, 2.5, 2, 1)
    return [m + r * math.tanh(x / r) for x, m, r in zip(numbers, middles, radii, strict=True)]


def window(numbers: list[float], height: int, width: int, patch: int) -> list[float]:
    """Return g_X, g_Y, sigma squared, delta and gamma (DRAW, equations 21-24)."""
    across, down, log_variance, log_stride, log_intensity = numbers
    return [
        (width + 1) / 2 * (across + 1),
        (height + 1) / 2 * (down + 1),
        math.exp(log_variance),
        (max(width, height) - 1) / (patch - 1 if patch > 1 else 1) * math.exp(log_stride),
        math.exp(log_intensity),
    ]


def filters(
    centre: float, variance: float, stride: float, patch: int, size: int
) -> list[list[float]]:
    """Return F[i][a] of one axis, i and a numbered from 1 (DRAW, equations 19, 20, 25, 26)."""
    rows = []
    for i in range(1, patch + 1):
        mean = centre + (i - patch / 2 - 0.5) * stride
        row = [math.exp(-((a - mean) ** 2) / (2 * variance)) for a in range(1, size + 1)]
        rows.append([value / sum(row) for value in row])
    return rows


def read(plane: list[list[float]], where: list[float], patch: int) -> list[list[float]]:
    """Return gamma F_Y x F_X^T of one channel (DRAW, equation 27)."""
    g_x, g_y, variance, stride, gamma = where
    f_y = filters(g_y, variance, stride, patch, len(plane))
    f_x = filters(g_x, variance, stride, patch, len(plane[0]))
    result = [[0.0] * patch for _ in range(patch)]
    for i in range(patch):
        for j in range(patch):
            for b, row in enumerate(plane):
                for a, pixel in enumerate(row):
                    result[i][j] += gamma * f_y[i][b] * pixel * f_x[j][a]
    return result


def write(
    plane: list[list[float]], where: list[float], height: int, width: int
) -> list[list[float]]:
    """Return F_Y^T w F_X / gamma of one channel (DRAW, equation 29)."""
    g_x, g_y, variance, stride, gamma = where
    patch = len(plane)
    f_y = filters(g_y, variance, stride, patch, height)
    f_x = filters(g_x, variance, stride, patch, width)
    result = [[0.0] * width for _ in range(height)]
    for b in range(height):
        for a in range(width):
            for i in range(patch):
                for j in range(patch):
                    result[b][a] += f_y[i][b] * plane[i][j] * f_x[j][a] / gamma
    return result


def gauss_hermite(points: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of an integral over a standard normal, exact for polynomials of
    degree below 2 points (Golub & Welsch 1969).
    """
    off = torch.arange(1, points, dtype=torch.float64).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, vectors[0].square()


def normal_line(points: int = 2001, reach: float = 9.0) -> tuple[Tensor, Tensor]:
    """Return evenly spaced numbers and the probability of each, for integrals over a standard
    normal of functions that are no polynomials.
    """
    line = torch.linspace(-reach, reach, points, dtype=torch.float64)
    density = torch.exp(-0.5 * line.square()) / math.sqrt(2 * math.pi)
    return line, density * (line[1] - line[0])


def normal_grid(points: int = 161) -> tuple[Tensor, Tensor]:
    """Return noise (points^2, 2 steps, 1 latent) and the probability of each, for integrals over
    two standard normals.
    """
    line, mass = normal_line(points)
    return torch.cartesian_prod(line, line).view(-1, 2, 1), (mass[:, None] * mass).flatten()


def binary_images(height: int, width: int) -> Tensor:
    """Return every binary image of a size, (2^(height width), 1, height, width)."""
    pixels = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return torch.cartesian_prod(*[pixels] * (height * width)).view(-1, 1, height, width)
