"""Speed, measured so that it can be believed: several rounds, contenders in turn, medians with their spread."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from drawbench import config as configs
from drawbench import streams
from drawbench.config import Classify
from drawbench.data.sources import Source
from drawbench.errors import Problem
from drawbench.evaluation import as_input
from drawbench.experiments.classify import FreshScenes, build, scene_of
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.glimpse_fast import fast_logits


def in_turn(contenders: dict[str, Callable[[], Any]], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Time each contender once a round, A B C A B C ..., so that a machine that drifts drifts for all.

    Returns:
        Seconds of each counted round, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warmup + rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _row(what: str, images: int, seconds: list[float], baseline: list[float] | None = None) -> dict[str, Any]:
    rates = sorted(images / second for second in seconds)
    row = {"what": what, "images/s": round(statistics.median(rates)), "slowest": round(rates[0]), "fastest": round(rates[-1])}
    if baseline is not None:
        ratios = [slow / fast for slow, fast in zip(baseline, seconds, strict=True)]
        row["times plain"] = round(statistics.median(ratios), 2)
    return row


def data_generation(config: Classify, source: Source, rounds: int) -> list[dict[str, Any]]:
    """Fresh scenes per second, at the training batch and in chunks of a thousand."""
    fresh = FreshScenes(source.splits["train"], scene_of(config.data), config.training.seed)
    rows = []
    for batch in (config.training.batch, 1000):
        repeats = max(1, 2000 // batch)

        def make(batch: int = batch, repeats: int = repeats) -> None:
            for number in range(repeats):
                fresh.batch(number * batch, batch)

        rows.append(_row(f"data, batches of {batch}", batch * repeats, in_turn({"data": make}, rounds)["data"]))
    return rows


def matrix_products(config: Classify, channels: int = 1) -> Callable[[], None]:
    """The matrix products of one training step, and nothing else: forward, and the gradients by inputs and by weights.

    This is the floor that a step is measured against. The image needs no gradient, so a product with it has only one in return.
    """
    model, data, batch = config.model, config.data, config.training.batch
    dtype = getattr(torch, config.training.precision)
    draw = streams.stream(0, "bench")
    image = torch.rand(batch, data.canvas, data.canvas, generator=draw).to(dtype)
    filters = torch.rand(batch, model.patch, data.canvas, generator=draw).to(dtype)
    inner = torch.rand(batch, model.patch, model.patch, generator=draw).to(dtype)
    inputs = torch.rand(batch, channels * model.patch**2 + model.hidden, generator=draw).to(dtype)
    weight = torch.rand(4 * model.hidden, inputs.shape[1], generator=draw).to(dtype)
    gates = torch.rand(batch, 4 * model.hidden, generator=draw).to(dtype)

    def step() -> None:
        for _ in range(model.glimpses):
            rows = filters @ image
            _ = rows @ filters.mT
            _ = inputs @ weight.T
            _ = gates @ weight
            _ = gates.T @ inputs
            _ = inner @ rows
            _ = (inner @ filters) @ image.mT

    return step


def training_step(config: Classify, source: Source, rounds: int) -> list[dict[str, Any]]:
    """Images per second of a whole gradient: the plain model, the fast path in float32 and bfloat16, and the products alone."""
    model = build(config)
    if not isinstance(model, GlimpseClassifier):
        raise Problem(f"there is a fast path for the model draw only, not for {config.model.model}")
    batch = config.training.batch
    pixels, labels = FreshScenes(source.splits["train"], scene_of(config.data), 0).batch(0, batch)

    def gradient(logits: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def run() -> None:
            model.zero_grad(set_to_none=True)
            F.cross_entropy(logits()[:, -1], labels).backward()

        return run

    contenders = {"plain": gradient(lambda: model(as_input(pixels)).logits)}
    for name in ("float32", "bfloat16"):
        contenders[f"fast, {name}"] = gradient(partial(fast_logits, model, pixels[:, None], products=getattr(torch, name)))
        contenders[f"products alone, {name}"] = matrix_products(configs.replace(config, precision=name))
    seconds = in_turn(contenders, rounds)
    return [_row(f"training step, {name}", batch, taken, seconds["plain"]) for name, taken in seconds.items()]
