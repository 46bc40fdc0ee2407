"""What is measured: the parts of the toolkit, each at some sizes, and the ways there are to do
their work.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drawbench import attention, distributed, likelihood, models, streams
from drawbench import config as configs
from drawbench.bench.products import CPU, Product, Run
from drawbench.data import sources
from drawbench.errors import Problem
from drawbench.fast.draw import fast_drawing
from drawbench.fast.glimpse import fast_logits
from drawbench.tasks.classify import CLASSES, FreshScenes, scene_of

Loss = Callable[
    [torch.dtype | None], Tensor
]  # by the fast path with products of that dtype, or by the plain model for None


class Contender(NamedTuple):
    """One way to do a piece of work."""

    implementation: str
    precision: str  #: of the matrix products


PLAIN = Contender("plain", "float32")
FAST = {name: Contender("fast", name) for name in ("float32", "bfloat16")}
FLOOR = {name: Contender("floor", name) for name in ("float32", "bfloat16")}
RENDER = Contender("render", "uint8")


def _pictures(batch: int, side: int) -> Tensor:
    """Noise, one pixel in ten lit, bool (B, 1, S, S)."""
    return torch.rand(batch, 1, side, side, generator=streams.stream(0, "bench")) < 0.1


@dataclass(frozen=True)
class Classifier:
    """The glimpse classifier at some size; the defaults are the paper's."""

    works: ClassVar = ("training", "evaluation")
    canvas: int = 100
    glimpses: int = 8
    patch: int = 12
    hidden: int = 256
    batch: int = 128

    def build(self) -> nn.Module:
        settings = configs.ClassifierModel(
            glimpses=self.glimpses, patch=self.patch, hidden=self.hidden
        )
        with streams.seeded(0, "bench"):
            return models.build_classifier(settings, (self.canvas, self.canvas), CLASSES)

    def loss(self, device: torch.device = CPU) -> tuple[nn.Module, Loss]:
        """The network and its loss on one batch."""
        model: Any = self.build().to(device)
        pixels = (_pictures(self.batch, self.canvas) * torch.tensor(255, dtype=torch.uint8)).to(
            device
        )
        labels = torch.arange(self.batch, device=device) % CLASSES

        def loss(products: torch.dtype | None) -> Tensor:
            logits = (
                model(pixels.float() / 255).logits
                if products is None
                else fast_logits(model, pixels, products=products)
            )
            return F.cross_entropy(logits[:, -1], labels)

        return model, loss

    def products(self) -> list[Product]:
        """What an image cannot do without. The image itself needs no gradient."""
        side, patch, units, steps = self.canvas, self.patch, self.hidden, self.glimpses
        return [
            Product(
                1, units, len(attention.PARAMETERS), steps, weights=True, exact=True
            ),  # the window
            Product(patch, side, side, steps, into_right=False),  # F_Y image
            Product(patch, side, patch, steps),  # ... F_X^T
            Product(1, patch**2 + units, 4 * units, steps, weights=True),  # the LSTM
            Product(steps, units, CLASSES, 1, weights=True, exact=True),  # the answers
        ]


@dataclass(frozen=True)
class Generator:
    """DRAW at some size; the defaults are the paper's for MNIST."""

    works: ClassVar = ("training", "evaluation")
    canvas: int = 28
    glimpses: int = 64
    attention: str = "both"
    read_patch: int = 2
    write_patch: int = 5
    hidden: int = 256
    latent: int = 100
    batch: int = 100

    def build(self) -> nn.Module:
        own = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("canvas", "batch")
        }
        with streams.seeded(0, "bench"):
            return models.build_generator(
                configs.GeneratorModel(**own), (1, self.canvas, self.canvas)
            )

    def loss(self, device: torch.device = CPU) -> tuple[nn.Module, Loss]:
        """The network and its loss on one batch."""
        model: Any = self.build().to(device)
        images = _pictures(self.batch, self.canvas).float().to(device)
        noise = torch.randn(
            self.batch, self.glimpses, self.latent, generator=streams.stream(0, "bench")
        ).to(device)

        def loss(products: torch.dtype | None) -> Tensor:
            made = (
                model(images, noise)
                if products is None
                else fast_drawing(model, images, noise, products)
            )
            return likelihood.terms(made.logits, images, made.mu, made.log_sigma).bound.mean()

        return model, loss

    def products(self) -> list[Product]:
        """What an image cannot do without. The image itself needs no gradient."""
        units, steps, latent, window = (
            self.hidden,
            self.glimpses,
            self.latent,
            len(attention.PARAMETERS),
        )
        reads, writes = (self.attention in ("both", side) for side in ("read", "write"))
        seen = 2 * self.read_patch**2 if reads else self.canvas**2
        with_weights = partial(Product, 1, times=steps, weights=True)
        products = [
            with_weights(seen + 2 * units, 4 * units),  # the encoder
            with_weights(units, 2 * latent),  # mu and log sigma
            with_weights(latent + units, 4 * units),  # the decoder
        ]
        if reads or writes:  # the numbers of the windows, and the patch to write
            products.append(
                with_weights(
                    units, window * (reads + writes) + writes * self.write_patch**2, exact=True
                )
            )
        return products + self._reading(reads) + self._writing(writes)

    def _reading(self, attentive: bool) -> list[Product]:
        side, patch, steps = self.canvas, self.read_patch, self.glimpses
        if (
            not attentive
        ):  # the image is the same at every step, and so is its part of the encoder's product
            return [Product(1, side**2, 4 * self.hidden, 1, into_left=False, weights=True)]
        return [
            Product(patch, side, side, steps, into_right=False, exact=True),  # F_Y image
            Product(patch, side, side, steps, exact=True),  # F_Y error
            Product(2 * patch, side, patch, steps, exact=True),  # both, F_X^T
        ]

    def _writing(self, attentive: bool) -> list[Product]:
        side, patch, steps = self.canvas, self.write_patch, self.glimpses
        if not attentive:
            return [Product(1, self.hidden, side**2, steps, weights=True)]
        return [
            Product(patch, patch, side, steps, exact=True),  # patch F_X
            Product(side, patch, side, steps, exact=True),  # F_Y^T ...
        ]


@dataclass(frozen=True)
class Data:
    """Fresh scenes from the embedded digits; they are made on the CPU, wherever the model is."""

    works: ClassVar = ("data",)
    canvas: int = 100
    digits: int = 1
    clutter: int = 8
    batch: int = 1000

    def render(self) -> Run:
        """A batch, other scenes at every call."""
        settings = configs.SceneData(canvas=self.canvas, digits=self.digits, clutter=self.clutter)
        fresh = FreshScenes(sources.load("digits", Path()).splits["train"], scene_of(settings), 0)
        made = 0

        def run() -> None:
            nonlocal made
            fresh.batch(made, self.batch)
            made += self.batch

        return run

    def products(self) -> list[Product]:
        return []


Case = Classifier | Generator | Data
CASES: dict[str, Case] = {  # the part of the toolkit, a dash, the size
    "classifier-paper": Classifier(),
    "classifier-small": Classifier(canvas=60, glimpses=4, batch=32),
    "generator-paper": Generator(),
    "generator-10": Generator(glimpses=10),
    "generator-no-attention": Generator(glimpses=20, attention="none"),
    "generator-small": Generator(glimpses=10, batch=20),
    "data-cluttered-100": Data(),
    "data-cluttered-60": Data(canvas=60, clutter=4),
    "data-mnist2": Data(canvas=60, digits=2, clutter=0),
}

GROWING = (
    "classifier-paper",
    "generator-10",
)  # whose growth is measured if nothing else is asked for


def select(names: Iterable[str], **changes: int | None) -> dict[str, Case]:
    """Cases by name or by part (``"generator"`` is all of that part); all if no name is given.

    Args: names: of cases and parts. changes: of their settings, such as ``batch=10``, where a case
        has that setting; None leaves it.

    Raises:
        Problem: a name is neither.
    """
    parts = list(dict.fromkeys(name.partition("-")[0] for name in CASES))
    names = list(names) or parts
    for name in names:
        if name not in CASES and name not in parts:
            close = difflib.get_close_matches(name, [*parts, *CASES], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise Problem(
                f"there is no part {name!r} to measure{hint}; there are {', '.join([*parts, *CASES])}"
            )
    chosen = {
        key: case for key, case in CASES.items() if key in names or key.partition("-")[0] in names
    }
    return {key: changed(case, **changes) for key, case in chosen.items()}


def changed(case: Case, **changes: int | None) -> Case:
    """The case with other settings, where it has them; None leaves one as it is."""
    new: dict[str, Any] = {
        name: value for name, value in changes.items() if value is not None and hasattr(case, name)
    }
    return dataclasses.replace(case, **new)


def contenders(case: Case, work: str, device: torch.device = CPU) -> dict[Contender, Run]:
    """Every way there is to do a piece of work, ready to run, the floor apart."""
    if isinstance(case, Data):
        return {RENDER: case.render()}
    model, loss = case.loss(device)
    losses = {
        PLAIN: partial(loss, None),
        **{contender: partial(loss, getattr(torch, name)) for name, contender in FAST.items()},
    }
    if work == "evaluation":
        return {contender: torch.no_grad()(loss) for contender, loss in losses.items()}
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.0, fused=True
    )  # at rate 0 every step does the same

    def step(loss: Callable[[], Tensor]) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        if distributed.size() > 1:
            gradients = [
                parameter.grad for parameter in model.parameters() if parameter.grad is not None
            ]
            distributed.mean_(gradients, torch.zeros(1), 1 / distributed.size())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return {contender: partial(step, loss) for contender, loss in losses.items()}
