"""The generation experiment: pictures, a network that draws them, and how well it explains those it
has not seen.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drawbench import config as configs
from drawbench import distributed, fast, likelihood, models, streams
from drawbench.config import Generate
from drawbench.data import pictures
from drawbench.data.pictures import Pictures
from drawbench.errors import Problem
from drawbench.evaluation import bounds
from drawbench.evaluation.bounds import Bound, ImportanceWeighted
from drawbench.evaluation.paired import BOUND, Outcomes
from drawbench.fast.graphs import Recorder
from drawbench.models import Generator
from drawbench.models.draw import Draw, Drawing
from drawbench.runs import Run
from drawbench.tasks import common
from drawbench.training import Reporter, StopFlag, Trainer, plan

START_IMAGES = 5000  # whose mean is the first start canvas


def build(config: Generate, size: tuple[int, int, int]) -> Generator:
    """The network for images of ``size`` (channels, height, width), with the initial weights of its
    seed.
    """
    with streams.seeded(config.training.seed, "weights"):
        return models.build_generator(config.model, size)


def start_canvas(train: pictures.Train) -> Tensor:
    """The canvas that explains training images best if nothing is drawn on it: the log-odds of
    their mean, float32 (C, H, W).

    The paper learns c_0 and does not say from where. From zeros, a grey sheet, the first epoch goes
    into learning this image.
    """
    seen = min(len(train), START_IMAGES)
    mean = train.batch(0, seen).double().mean(0) / 255
    return torch.logit((seen * mean + 1) / (seen + 2)).float()


class GenerationTask:
    """A :class:`drawbench.training.Task`: the bound with one sample of the latents for an image,
    selected by validation bound.
    """

    selected_by = "validation_bound"

    def __init__(self, model: Generator, data: Pictures, config: Generate, device: torch.device):
        self.model, self.data, self.train, self.device = model, data, data.train.to(device), device
        self.about = {"size": list(data.size)}
        self.seed, self.products = config.training.seed, common.products_of(config.training, device)
        self.segment = config.training.checkpoint_steps
        self.recorder = Recorder(self.products) if config.training.graph else None
        self.validated = bounds.evenly(len(data.validation), config.training.validation_images)
        self.images_per_epoch = len(data.train)

    def batch(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        images = self.train.batch(first, count)
        index = torch.arange(first, first + count, device=self.device)
        return bounds.as_images(images, self.device), bounds.noise(
            index, self.model.steps, self.model.latent, self.seed, "train"
        )

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        images, noise = batch
        made = self._draw(images, noise)
        terms = likelihood.terms(made.logits, images, made.mu, made.log_sigma)
        loss = terms.bound.mean()
        logged = {
            "bound": loss,
            "reconstruction": terms.reconstruction.mean(),
            "kl": terms.kl.sum(1).mean(),
        }
        return loss, {name: value.detach() for name, value in logged.items()}

    def _draw(self, images: Tensor, noise: Tensor) -> Drawing:
        if self.recorder is not None:
            return self.recorder.of(self.model).drawing(images, noise)
        return fast.drawing(self.model, images, noise, self.products, self.segment)

    def validate(self, model: Generator, check: Callable[[], None]) -> dict[str, float]:
        with common.exactly():
            measured = bounds.bound(model, self.data.validation, index=self.validated, check=check)
        steps = {f"kl_{t}": float(kl) for t, kl in enumerate(measured.kl.mean(axis=0), start=1)}
        return {
            "validation_bound": measured.value,
            "validation_reconstruction": float(measured.reconstruction.mean()),
            "validation_kl": float(measured.kl.sum(axis=1).mean()),
            **steps,
        }


class Experiment:
    """Everything that a generation run needs: its data, found or made, and the steps from training
    to the result.

    Args:
        config: the settings; :attr:`config` has what ``auto`` was found to mean.
        sources_root, datasets_root: folders of original files and of generated data sets.
        reporter: is told what goes on.

    Raises:
        Problem: the data are not there or not what the settings need, or a size does not fit.
    """

    def __init__(
        self,
        config: Generate,
        sources_root: Path,
        datasets_root: Path,
        reporter: Reporter,
        *,
        download: bool = True,
    ):
        self.device = common.device_of(config.training.device)
        threads = common.use_threads(config.training)
        self.reporter = reporter
        with distributed.in_turn():
            self.data = load_pictures(
                config, sources_root, datasets_root, reporter, download=download
            )
        found = {"pixels": self.data.pixels, "threads": threads, "processes": distributed.size()}
        digits = {"source": self.data.source} if config.data.dataset in ("mnist", "mnist2") else {}
        self.config: Generate = configs.replace(config, **found, **digits)
        common.check_same(self.config)

    def task(self) -> GenerationTask:
        """The task with a freshly initialised network."""
        model = build(self.config, self.data.size)
        if isinstance(model, Draw):
            with torch.no_grad():
                model.start_canvas.copy_(start_canvas(self.data.train))
        return GenerationTask(model.to(self.device), self.data, self.config, self.device)

    def plan(self) -> None:
        """Fix the number of steps in the configuration; may measure the machine for a minute at
        most.
        """
        self.config = plan(self.task(), self.config, self.reporter.say)

    def train(self, run: Run, flag: StopFlag) -> Trainer:
        """Train, or go on training, to the end; see :func:`drawbench.tasks.common.train`."""
        return common.train(self.task(), run, self.reporter, flag)

    def measure(
        self,
        model: Generator,
        flag: StopFlag,
        *,
        samples: int,
        iw_samples: int | None,
        iw_images: int | None,
        batch: int = bounds.BATCH,
    ) -> tuple[Bound, ImportanceWeighted | None]:
        """The bounds of a model on the test images.

        Args:
            samples: of each image for the bound.
            iw_samples: K of the importance-weighted bound, or None to leave it out.
            iw_images: test images that it is measured on, evenly spaced, or None for all.
            batch: images at a time.
        """

        check_fits(model, self.data)

        def progress(done: int, total: int) -> None:
            self.reporter.progress(done, total, {})

        test = self.data.test
        measured = bounds.bound(
            model, test, samples=samples, batch=batch, check=flag.check, progress=progress
        )
        if iw_samples is None:
            return measured, None
        chosen = bounds.evenly(len(test), iw_images)
        weighted = bounds.importance_weighted(
            model,
            test,
            samples=iw_samples,
            index=chosen,
            batch=batch,
            check=flag.check,
            progress=progress,
        )
        return measured, weighted


def load_pictures(
    config: Generate,
    sources_root: Path,
    datasets_root: Path,
    reporter: Reporter,
    *,
    download: bool = True,
) -> Pictures:
    """The data set that settings describe, made or downloaded if it is not there."""
    data = config.data
    return pictures.load(
        data.dataset,
        pixels=data.pixels,
        source=data.source,
        images=None if data.images is None else Path(data.images),
        side=data.size,
        broken=data.broken,
        seed=config.training.seed,
        data_seed=data.data_seed,
        sources_root=sources_root,
        datasets_root=datasets_root,
        download=download,
        say=reporter.say,
        progress=lambda done, total: reporter.progress(done, total, {}),
    )


def load_model(run: Run) -> Generator:
    """The network of a run with its best weights, ready to measure. The size of its images is that
    of its weights.

    Raises: Problem: the run is not a generator's, has no weights yet, or they are damaged or do not
        fit.
    """
    if run.config.task != "generate":
        raise Problem(f"{run.folder} is a run of {run.config.task!r}, not of a generator")
    _, facts = run.load_best()
    size = facts.get("size")
    if not (
        isinstance(size, list)
        and len(size) == 3
        and all(type(number) is int and 1 <= number <= 4096 for number in size)
    ):
        raise Problem(
            f"the weights in {run.folder} do not say for images of which size they are; train it again with --force"
        )
    return common.load_weights(lambda: build(run.config, (size[0], size[1], size[2])), run)


def check_fits(model: Generator, data: Pictures) -> None:
    """Nothing, if the model is one for images of this size.

    Raises:
        Problem: it is not.
    """
    if tuple(model.size) != data.size:
        sizes = ["x".join(str(number) for number in size) for size in (model.size, data.size)]
        raise Problem(
            f"the model is one for {sizes[0]} images, but {data.name} has {sizes[1]} (channels x height x width)"
        )


def test_sha256(data: Pictures) -> str:
    """Of the test images."""
    return hashlib.sha256(data.test.contiguous().numpy().data).hexdigest()


def outcomes(measured: Bound, data: Pictures) -> Outcomes:
    """The bound of each test image."""
    return Outcomes(BOUND, test_sha256(data), measured.per_image.astype(np.float32))


def measured_fields(
    measured: Bound, weighted: ImportanceWeighted | None, data: Pictures
) -> dict[str, Any]:
    """What was measured, as it stands in ``result.json`` and in what ``evaluate`` prints."""
    low, high = measured.interval
    fields: dict[str, Any] = {
        "metric": BOUND,
        "value": measured.value,
        "low": low,
        "high": high,
        "n": measured.n,
        "standard_error": measured.standard_error,
        "bound_samples": measured.samples,
        "sampling_error": measured.sampling_error,
        "reconstruction": float(measured.reconstruction.mean()),
        "kl": float(measured.kl.sum(axis=1).mean()),
        "kl_per_step": measured.kl.mean(axis=0).tolist(),
        "test_sha256": test_sha256(data),
        "bits_per_dimension": likelihood.bits_per_dimension(measured.value, math.prod(data.size)),
    }
    if not data.binary:
        floors = [
            likelihood.entropy_floor(bounds.as_images(some)) for some in data.test.split(1000)
        ]
        fields["entropy_floor"] = float(torch.cat(floors).mean())
        fields["above_floor"] = measured.value - fields["entropy_floor"]
    if weighted is not None:
        fields |= {
            "iw_bound": weighted.value,
            "iw_samples": weighted.samples,
            "iw_images": len(weighted.per_image),
            "iw_standard_error": weighted.standard_error,
            "iw_effective_samples": float(weighted.effective.mean()),
        }
    return fields


def result(
    config: Generate,
    data: Pictures,
    measured: Bound,
    weighted: ImportanceWeighted | None,
    trainer: Trainer,
    command: str,
) -> dict:
    """The content of ``result.json``."""
    training, model = config.training, config.model
    best = next(row for row in trainer.rows if row["validation_bound"] == trainer.best)
    channels, height, width = data.size
    return {
        "task": config.task,
        "model": model.model,
        "attention": model.attention if model.model == "draw" else "none",
        "dataset": data.name,
        "source": data.source,
        "pixels": data.rule,
        "image": f"{channels}x{height}x{width}",
        **measured_fields(measured, weighted, data),
        "seed": training.seed,
        "steps": trainer.step,
        "images_seen": trainer.step * training.batch,
        "start": training.start,
        "train_seconds": round(trainer.seconds, 1),
        "glimpses": trainer.task.model.steps,
        "parameters": sum(parameter.numel() for parameter in trainer.task.model.parameters()),
        "validation_bound": best["validation_bound"],
        "best_step": best["step"],
        "command": command,
    }
