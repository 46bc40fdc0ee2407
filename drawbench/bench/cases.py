"""What is measured: parts of the toolkit at a few sizes, and the ways to do their work."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drawbench import attention, fast, models, streams
from drawbench import config as configs
from drawbench.bench.floor import CPU, Product, Run
from drawbench.data import digits, scenes, sentences
from drawbench.data.scenes import DIGIT
from drawbench.errors import Problem, reason
from drawbench.fast.graphs import Recorder
from drawbench.likelihood import Terms
from drawbench.models.cnn import Answer
from drawbench.tasks.generate import loss_terms

CLASSES = 10
Forward = Callable[..., Any]  #: a model's forward, or another implementation of it


class Contender(NamedTuple):
    """One way to do a piece of work."""

    implementation: str
    precision: str  #: of the matrix products


def _in_both(implementation: str) -> dict[str, Contender]:
    return {name: Contender(implementation, name) for name in ("float32", "bfloat16")}


PLAIN, AUTOCAST = _in_both("plain").values()
FAST, FLOOR = _in_both("fast"), _in_both("floor")
COMPILED = _in_both("compiled")  #: the plain model through torch.compile
GRAPHS = _in_both("graph")  #: replayed as CUDA graphs, DRAW by hand: our path on a GPU
PROCESSES = _in_both("processes")  #: plain, as many processes of one thread as there are threads
RENDER = Contender("render", "uint8")


def _images(batch: int, side: int) -> Tensor:
    """Return noise with one pixel in ten lit, float32 (B, 1, S, S)."""
    return (torch.rand(batch, 1, side, side, generator=streams.stream(0, "bench")) < 0.1).float()


def _model(kind: str, case: Any, name: str = "draw", **facts: int) -> nn.Module:
    """Make a model of a kind by name, with the case's sizes; its images are (1, S, S)."""
    settings = getattr(configs, kind)[name]
    known = {field.name for field in dataclasses.fields(settings)}
    settings = settings(**{k: v for k, v in dataclasses.asdict(case).items() if k in known})
    facts |= {"channels": 1, "height": case.canvas, "width": case.canvas}
    with streams.seeded(0, "bench"):
        return models.make(getattr(models, kind)[name], settings.arguments, facts)


@dataclass(frozen=True)
class Classifier:
    """The glimpse classifier; the defaults are the paper's sizes."""

    works: ClassVar = ("training", "evaluation")
    canvas: int = 100
    glimpses: int = 8
    patch: int = 12
    hidden: int = 256
    batch: int = 128

    def build(self) -> nn.Module:
        """Make the model."""
        return _model("CLASSIFIERS", self, classes=CLASSES)

    def loss(self, device: torch.device = CPU) -> Callable[[Forward], Tensor]:
        """Return the loss on one batch as a function of the forward to use."""
        images = (_images(self.batch, self.canvas) * 255).byte().to(device)  # as in training
        labels = torch.arange(self.batch, device=device) % CLASSES
        return lambda forward: F.cross_entropy(forward(images).logits[:, -1].float(), labels)

    def replayed(self, model: nn.Module, dtype: torch.dtype) -> Forward:
        """Return the model's forward as a CUDA graph."""
        recorder = Recorder(dtype, lambda model, images: (model(images).logits,))
        return lambda images: Answer(recorder(model, models.as_images(images))[0])

    def products(self) -> list[Product]:
        """List the products that one image needs; the image itself needs no gradient."""
        side, patch, units, steps = self.canvas, self.patch, self.hidden, self.glimpses
        window = len(attention.PARAMETERS)
        return [
            Product(1, units, window, steps, weights=True, exact=True),  # the window
            Product(patch, side, side, steps, into_right=False),  # F_Y image
            Product(patch, side, patch, steps),  # ... F_X^T
            Product(1, patch**2 + units, 4 * units, steps, weights=True),  # the LSTM
            Product(steps, units, CLASSES, 1, weights=True, exact=True),  # the answers
        ]


@dataclass(frozen=True)
class Eye(Classifier):
    """The glimpse classifier with a convolutional eye."""

    def build(self) -> nn.Module:
        """Make the model."""
        return _model("CLASSIFIERS", self, "eye", classes=CLASSES)

    def products(self) -> list[Product]:
        """List the products that one image needs, the convolutions as products over places."""
        side, steps, features, seen = self.patch, self.glimpses, 16, 32
        places = ((side + 1) // 2) ** 2
        more = places * seen + len(attention.PARAMETERS)  # inputs of the LSTM
        return [
            *super().products(),
            Product(1, more, 4 * self.hidden, steps, weights=True),
            Product(side**2, 9, features, steps, weights=True),
            Product(places, 9 * features, seen, steps, weights=True),
        ]


@dataclass(frozen=True)
class Generator:
    """DRAW; the defaults are the paper's sizes for MNIST."""

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
        """Make the model."""
        return _model("GENERATORS", self)

    def loss(self, device: torch.device = CPU) -> Callable[[Forward], Tensor]:
        """Return the loss on one batch as a function of the forward to use."""
        images = _images(self.batch, self.canvas).to(device)
        shape = (self.batch, self.glimpses, self.latent)
        noise = torch.randn(shape, generator=streams.stream(0, "bench")).to(device)
        inputs = (images, noise, *(one.to(device) for one in self.conditions()))
        return lambda forward: forward(*inputs).terms(images).bound.mean()

    def conditions(self) -> tuple[Tensor, ...]:
        """Return what the model is told beside the images."""
        return ()

    def replayed(self, model: nn.Module, dtype: torch.dtype) -> Forward:
        """Return the model's forward as a CUDA graph, as a training uses it."""
        recorder = Recorder(dtype, partial(loss_terms, dtype, None))

        def forward(*inputs: Tensor) -> Any:
            terms = Terms(*recorder(model, *inputs))
            return SimpleNamespace(terms=lambda _: terms)

        return forward

    def products(self) -> list[Product]:
        """List the products that one image needs; the image itself needs no gradient."""
        units, steps, latent = self.hidden, self.glimpses, self.latent
        window = len(attention.PARAMETERS)
        reads, writes = (self.attention in ("both", side) for side in ("read", "write"))
        pixels = 2 * self.read_patch**2 if reads else self.canvas**2
        with_weights = partial(Product, 1, times=steps, weights=True)
        products = [
            with_weights(pixels + 2 * units, 4 * units),  # the encoder
            with_weights(units, 2 * latent),  # mu and log sigma
            with_weights(latent + units, 4 * units),  # the decoder
        ]
        if reads or writes:  # the numbers of the windows, and the patch to write
            numbers = window * (reads + writes) + writes * self.write_patch**2
            products.append(with_weights(units, numbers, exact=True))
        return products + self._reading(reads) + self._writing(writes)

    def _reading(self, attentive: bool) -> list[Product]:
        side, patch, steps = self.canvas, self.read_patch, self.glimpses
        if not attentive:  # every step sees the same image, so one product serves all
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
class Captions(Generator):
    """alignDRAW; the defaults are its authors' sizes for digits."""

    canvas: int = 60
    glimpses: int = 32
    read_patch: int = 8
    write_patch: int = 8
    hidden: int = 300
    latent: int = 150
    words: int = 128
    alignment: int = 512
    length: int = sentences.LENGTH  #: words of a caption

    def build(self) -> nn.Module:
        """Make the model."""
        return _model("GENERATORS", self, "aligndraw", vocabulary=len(sentences.WORDS))

    def conditions(self) -> tuple[Tensor, ...]:
        """Return captions of random words."""
        draw = streams.stream(0, "bench")
        shape = (self.batch, self.length)
        return (torch.randint(len(sentences.WORDS), shape, generator=draw),)

    def products(self) -> list[Product]:
        """List the products that one image needs, those of the languages' LSTMs included."""
        units, steps, both = self.hidden, self.glimpses, 2 * self.words
        exact = partial(Product, weights=True, exact=True)
        return [
            *super().products(),
            Product(1, both, 4 * units, steps, weights=True),  # the decoder's part for the words
            exact(1, units, self.alignment, steps),  # the queries
            exact(self.length, self.alignment, 1, steps),  # the scores
            Product(1, self.length, both, steps, exact=True),  # what is attended to
            exact(1, len(sentences.WORDS) + self.words, 8 * self.words, self.length),
            exact(self.length, both, self.alignment, 1),  # the keys
            exact(steps - 1, units, 2 * self.latent, 1),  # the prior
        ]


@dataclass(frozen=True)
class Data:
    """Fresh scenes from the embedded digits, rendered on the CPU."""

    works: ClassVar = ("data",)
    canvas: int = 100
    digits: int = 1
    clutter: int = 8
    batch: int = 1000

    def render(self) -> Run:
        """Return what makes a batch, with new scenes at every call."""
        part = digits.load("digits", Path()).splits["train"]
        scene = scenes.Scene(canvas=self.canvas, digits=self.digits, clutter=self.clutter)
        first = count(0, self.batch)

        def run() -> None:
            start = next(first)
            scenes.fresh(part, scene, torch.arange(start, start + self.batch), 0, "bench")

        return run

    def products(self) -> list[Product]:
        """Return none: scenes need no matrix products."""
        return []


Case = Classifier | Generator | Data
CASES: dict[str, Case] = {  # the part of the toolkit, a dash, the size
    "classifier-paper": Classifier(),
    "classifier-eye": Eye(),
    "classifier-small": Classifier(canvas=60, glimpses=4, batch=32),
    "generator-paper": Generator(),
    "generator-10": Generator(glimpses=10),
    "generator-no-attention": Generator(glimpses=20, attention="none"),
    "generator-small": Generator(glimpses=10, batch=20),
    "generator-captions": Captions(),
    "data-cluttered-100": Data(),
    "data-cluttered-60": Data(canvas=60, clutter=4),
    "data-mnist2": Data(canvas=60, digits=2, clutter=0),
}


def select(names: Iterable[str], **changes: int | None) -> dict[str, Case]:
    """Select cases by name or by part (``"generator"`` is every case of that part).

    Args:
        names: of cases and parts; all cases if there are none.
        changes: settings such as ``batch=10``, applied to the cases that have them; None leaves
            a setting as it is.

    Raises:
        Problem: a name is neither a case nor a part; a canvas that cannot hold a digit.
    """
    parts = list(dict.fromkeys(name.partition("-")[0] for name in CASES))
    names, known = list(names) or parts, [*parts, *CASES]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise Problem(f"there is no case {name!r}{hint} Choose from {', '.join(known)}")
    chosen = {
        name: _changed(case, changes)
        for name, case in CASES.items()
        if name in names or name.partition("-")[0] in names
    }
    side = changes.get("canvas") or DIGIT
    if side < DIGIT and any(isinstance(case, Data) for case in chosen.values()):
        raise Problem(
            f"data are digits of {DIGIT}x{DIGIT}, which a canvas of {side} cannot hold: give "
            f"--canvas {DIGIT} or more, or other cases"
        )
    return chosen


def _changed(case: Case, changes: dict[str, int | None]) -> Case:
    new: dict[str, Any] = {
        name: value for name, value in changes.items() if value is not None and hasattr(case, name)
    }
    return dataclasses.replace(case, **new)


def _compiled(forward: Forward) -> Forward:
    """Return a forward that is compiled when it first runs.

    Raises:
        Problem: it cannot be compiled here.
    """
    compiled = cache(lambda: torch.compile(forward))  # even to ask for it takes seconds

    def run(*inputs: Tensor) -> Any:
        try:
            return compiled()(*inputs)
        except Exception as error:
            raise Problem(
                f"torch.compile failed, so leave out --against compile: {reason(error)}"
            ) from error

    return run


def contenders(case: Case, work: str, device: torch.device = CPU) -> dict[Contender, Run]:
    """Return every way to do a piece of work in this process, ready to run, except the floor.

    A compiled one compiles when it first runs, which can take minutes.

    Args:
        work: one of the case's ``works``.
    """
    if isinstance(case, Data):
        return {RENDER: case.render()}
    model, loss = case.build().to(device), case.loss(device)

    def plain(images: Tensor, *inputs: Tensor) -> Any:
        return model(models.as_images(images), *inputs)

    def autocast(*inputs: Tensor) -> Any:
        with torch.autocast(device.type, torch.bfloat16):
            return plain(*inputs)

    forwards: dict[Contender, Forward] = {PLAIN: plain, AUTOCAST: autocast}
    for one, compiled in zip((PLAIN, AUTOCAST), COMPILED.values(), strict=True):
        forwards[compiled] = _compiled(forwards[one])
    for name, contender in FAST.items():
        forwards[contender] = fast.forward_for(model, getattr(torch, name))
    if device.type == "cuda" and work == "training":
        for name, contender in GRAPHS.items():
            forwards[contender] = case.replayed(model, getattr(torch, name))
    # At rate 0 every step does the same work.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)

    def evaluate(forward: Forward) -> Tensor:
        with torch.no_grad():
            return loss(forward)

    def train(forward: Forward) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(forward).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    step = train if work == "training" else evaluate
    return {contender: partial(step, forward) for contender, forward in forwards.items()}
