"""An independent reader of drawn digits: a small convolutional network that knows no generator.

It says which digit a 28x28 picture shows, so that a drawing can be checked against its caption. It
was trained on the 55,000 MNIST training digits, moved, scaled, turned, and with strokes that are
grey, binary or soft, as drawings have them. Its weights come with the package, with its error on
the 10,000 test digits. To train it again: ``make reader``.
"""

import functools
import math
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from drawbench import streams
from drawbench.data.scenes import Digits

FILE = "reader.safetensors"
UPDATES, BATCH, RATE = 2500, 128, 2e-3
SHIFT, SCALE, TURN = 3.0, 0.2, 0.15  # largest: pixels, share of the size, radians


class Reader(nn.Module):
    """Three convolutions and a linear layer; maps pictures (N, 1, 28, 28) in [0, 1] to logits
    (N, 10).
    """

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.third = nn.Conv2d(32, 64, 3, padding=1)
        self.classify = nn.Linear(64 * 7 * 7, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        hidden = functional.max_pool2d(torch.relu(self.first(pictures)), 2)
        hidden = functional.max_pool2d(torch.relu(self.second(hidden)), 2)
        return self.classify(torch.relu(self.third(hidden)).flatten(1))


def _file() -> Any:
    return resources.files("drawbench.evaluation") / FILE


@functools.cache
def load_reader() -> Reader:
    """Return the trained reader, on the CPU, ready to use and shared by all who ask."""
    with resources.as_file(_file()) as path, safe_open(path, "pt") as weights:
        state = {name: weights.get_tensor(name).float() for name in weights.keys()}  # noqa: SIM118
    reader = Reader()
    reader.load_state_dict(state)
    return reader.eval().requires_grad_(False)


def facts() -> dict[str, str]:
    """Return what is known of the reader: ``error_percent`` on ``n`` test digits, ``trained_on``,
    ``command``.
    """
    with resources.as_file(_file()) as path, safe_open(path, "pt") as weights:
        return weights.metadata()


# ---- Training


def distort(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Move, scale and turn pictures (N, 1, 28, 28) in [0, 1], and change their strokes: a third
    stay grey, a third become binary with the grey as probability, a third are blurred.
    """
    count, side = len(pictures), pictures.shape[-1]
    uniform = 2 * torch.rand(count, 5, generator=generator) - 1
    angle = TURN * uniform[:, 4]
    # affine_grid maps places of the result to places of the source, in image halves
    zoom = torch.exp(SCALE * uniform[:, 2:4])
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    move = SHIFT * 2 / side * uniform[:, :2]
    where = torch.cat([turn * zoom[:, None], move[..., None]], 2)
    grid = functional.affine_grid(where, list(pictures.shape), align_corners=False)
    moved = functional.grid_sample(pictures, grid, align_corners=False).clamp(0, 1)
    binary = torch.bernoulli(moved, generator=generator)
    soft = functional.avg_pool2d(moved, 3, 1, 1)
    stroke = torch.randint(3, (count, 1, 1, 1), generator=generator)
    return torch.where(stroke == 0, moved, torch.where(stroke == 1, binary, soft))


def train(digits: Digits, seed: int = 0, updates: int = UPDATES) -> Reader:
    """Train a reader on digits with Adam and a cosine to zero."""
    with streams.seeded(seed, "reader"):
        reader = Reader()
    optimizer = torch.optim.Adam(reader.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / updates))
    )
    for step in range(updates):
        generator = streams.stream(seed, "reader", step)
        rows = torch.randint(len(digits), (BATCH,), generator=generator)
        pictures = distort(digits.images[rows][:, None] / 255, generator)
        loss = functional.cross_entropy(reader(pictures), digits.labels[rows].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader.eval().requires_grad_(False)


def error_count(reader: Reader, digits: Digits) -> int:
    """Return how many digits a reader takes for another."""
    pieces = zip(digits.images.split(1000), digits.labels.split(1000), strict=True)
    wrong = (reader(images[:, None] / 255).argmax(1) != labels for images, labels in pieces)
    return sum(int(some.sum()) for some in wrong)


def save(reader: Reader, path: Path, facts: dict[str, str]) -> None:
    """Write a reader's weights in half precision."""
    state = {name: value.half().contiguous() for name, value in reader.state_dict().items()}
    save_file(state, path, facts)


def make() -> None:
    """Train the reader on MNIST, measure it as it is stored, and put it into the package."""
    from drawbench import data
    from drawbench.data import digits
    from drawbench.evaluation.error_rate import wilson

    parts = digits.load("mnist", data.sources_root()).splits
    path, about = Path(str(_file())), {"trained_on": "55,000 MNIST training digits, distorted"}
    reader = train(parts["train"])
    save(reader, path, about)
    errors, n = error_count(load_reader(), parts["test"]), len(parts["test"])
    low, high = wilson(errors, n)
    numbers = {"error_percent": f"{100 * errors / n:.2f}", "n": str(n), "errors": str(errors)}
    interval = {"low": f"{low:.2f}", "high": f"{high:.2f}", "updates": str(UPDATES)}
    save(reader, path, about | numbers | interval | {"command": "make reader"})
