"""Generation: a network draws images; the bound on the likelihood of those it has not seen."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from drawbench import fast, likelihood, models, streams
from drawbench.data.batch import Batch
from drawbench.data.dataset import Dataset, Train
from drawbench.errors import Problem
from drawbench.evaluation import bounds, captions
from drawbench.evaluation.paired import BOUND, Outcomes
from drawbench.fast.graphs import Recorder
from drawbench.likelihood import Terms
from drawbench.reporters import Views
from drawbench.runs import Run
from drawbench.tasks import common
from drawbench.tasks.task import Check, Measurement, Progress

START_IMAGES = 5000  # whose mean is the first start canvas


def start_canvas(
    train: Train, canvas_of: Callable[[Tensor], Tensor] = likelihood.Bernoulli.canvas_of
) -> Tensor:
    """Return the canvas that explains training images best if nothing is drawn on it.

    Their mean, as the likelihood writes it on a canvas (for Bernoulli its log-odds), float32
    (C, H, W). The paper learns c_0 and does not say from where; from zeros, a grey sheet, the first
    epoch goes into learning this image.
    """
    count = min(len(train), START_IMAGES)
    mean = train.batch(0, count).images.double().mean(0) / 255
    return canvas_of((count * mean + 1) / (count + 2)).float()


class Generate:
    """A :class:`drawbench.tasks.task.Task`: the bound with one sample of the latents per image.

    Raises:
        Problem: the likelihood does not fit the pixels, or the precision needs a GPU and there is
            none.
    """

    name: ClassVar[str] = "generate"
    selected_by: ClassVar[str] = "validation_bound"
    length_hint: ClassVar[str] = "Published results take hours: --epochs 60 and more."
    conditions: tuple[str, ...] = ()

    def __init__(self, config: Any, dataset: Dataset, model: Any, device: torch.device):
        self.config, self.dataset, self.model, self.device = config, dataset, model, device
        self.levels = bool(getattr(model, "levels", False))  # 256 of them
        if self.levels and dataset.binary:
            raise Problem(
                f"--likelihood logistic is for pixels of 256 levels, but those of {dataset.name} "
                "are black or white: use --likelihood bernoulli, or --pixels intensity"
            )
        self.train = dataset.train.to(streams.exact_device(device))
        self.matmul_dtype = common.matmul_dtype(config.training, device)
        replays = common.replays(config.training, device, model)
        terms = partial(loss_terms, self.matmul_dtype, config.training.checkpoint_steps)
        self.terms = Recorder(self.matmul_dtype, terms) if replays else terms
        self.validated = bounds.evenly(len(dataset.validation), config.training.validation_images)
        self.images_per_epoch = len(dataset.train)

    @property
    def about(self) -> dict[str, Any]:
        return {"size": list(self.dataset.size)}

    @property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint

    # -- training

    def batch(self, first: int, count: int) -> tuple[Batch, Tensor]:
        """Return training samples and fresh noise (B, steps, latent)."""
        index = torch.arange(first, first + count, device=streams.exact_device(self.device))
        model, seed = self.model, self.config.training.seed
        drawn = bounds.noise(index, model.steps, model.latent, seed, "train")
        return self.train.batch(first, count), drawn

    def loss(self, batch: tuple[Batch, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        (images, _, condition), drawn = batch
        images = models.as_images(images, self.device)
        inputs = (
            images,
            drawn.to(self.device),
            *(() if condition is None else (condition.to(self.device),)),
        )
        with common.blame(self.config):
            terms = Terms(*self.terms(self.model, *inputs))
        loss = terms.bound.mean()
        metrics = {"reconstruction": terms.reconstruction.mean(), "kl": terms.kl.sum(1).mean()}
        return loss, {name: value.detach() for name, value in {"bound": loss, **metrics}.items()}

    def validate(self, model: Any, check: Check) -> dict[str, float]:
        measured = bounds.bound(
            common.measurable(model), self.dataset.validation, index=self.validated, check=check
        )
        kl = measured.kl.mean(axis=0)
        return {
            "validation_bound": measured.value,
            "validation_reconstruction": float(measured.reconstruction.mean()),
            "validation_kl": float(measured.kl.sum(axis=1).mean()),
            **{f"kl_{t}": float(value) for t, value in enumerate(kl, start=1)},
        }

    def views(self, model: Any) -> Views:
        from drawbench.tasks.pictures import generator_views

        return generator_views(model, self.dataset)

    # -- measuring

    def test(
        self,
        model: Any,
        check: Check,
        progress: Progress,
        *,
        batch: int = bounds.BATCH,
        bound_samples: int | None = None,
        samples: int | None = None,
        images: int | None = None,
    ) -> Measurement:
        """Measure the bound and, where samples are asked for, the importance-weighted bound.

        Args:
            bound_samples: per image for the bound; the run's own number if None.
            samples: K of the importance-weighted bound; the run's ``iw_samples`` if None.
            images: test images that it is measured on, evenly spaced; all if None.
        """
        training, part = self.config.training, self.dataset.test
        if samples is None:
            samples, images = training.iw_samples, training.iw_images
        wishes: dict[str, Any] = {"batch": batch, "check": check, "progress": progress}
        bound = bounds.bound(model, part, samples=bound_samples or training.bound_samples, **wishes)
        outcomes = Outcomes(BOUND, part.sha256(), bound.per_image.astype(np.float32))
        low, high = bound.interval or (bound.value, bound.value)
        fields: dict[str, Any] = {
            "metric": BOUND,
            "value": bound.value,
            "low": low,
            "high": high,
            "n": bound.n,
            "standard_error": bound.standard_error,
            "bound_samples": bound.samples,
            "sampling_error": bound.sampling_error,
            "reconstruction": float(bound.reconstruction.mean()),
            "kl": float(bound.kl.sum(axis=1).mean()),
            "kl_per_step": bound.kl.mean(axis=0).tolist(),
            "test_sha256": outcomes.test_sha256,
        }
        if self.dataset.binary or self.levels:
            fields["bits_per_dimension"] = likelihood.bits_per_dimension(
                bound.value, math.prod(self.dataset.size)
            )
        else:  # a cross-entropy, which no number of bits describes
            pieces = map(models.as_images, part.images.split(1000))
            floors = list(map(likelihood.entropy_floor, pieces))
            fields["entropy_floor"] = float(torch.cat(floors).mean())
            fields["above_floor"] = bound.value - fields["entropy_floor"]
        if samples is not None:
            index = bounds.evenly(len(part), images)
            weighted = bounds.importance_weighted(
                model, part, samples=samples, index=index, **wishes
            )
            fields |= {
                "iw_bound": weighted.value,
                "iw_samples": weighted.samples,
                "iw_images": len(weighted.per_image),
                "iw_standard_error": weighted.standard_error,
                "iw_effective_samples": float(weighted.effective.mean()),
            }
        if part.condition is not None:
            fields |= captions.measure(model, self.dataset, **wishes)
        return Measurement(fields, outcomes)

    def against(
        self, model: Any, condition: str, values: list[int], check: Check
    ) -> list[dict[str, Any]]:
        raise Problem(f"a generator is not measured against {condition}")

    # -- telling

    def facts(self) -> dict[str, Any]:
        dataset, rule = self.dataset, self.dataset.rule
        if not dataset.binary:
            how = "a discretised logistic" if self.levels else "the cross-entropy is no likelihood"
            rule = f"{rule}; {how}" if rule else how
        return {
            "model": self.config.model.model,
            "attention": models.attention_of(self.model),
            "likelihood": "logistic" if self.levels else "bernoulli",
            "dataset": dataset.name,
            "source": dataset.source,
            "pixels": rule,
            "image": "x".join(map(str, dataset.size)),
            "glimpses": self.model.steps,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
        }

    def draw(self, run: Run, model: Any, result: dict[str, Any], pictures: int) -> list[Path]:
        from drawbench.tasks.pictures import generator_pictures

        return generator_pictures(run, model, self.dataset, result, pictures)


def initialize(model: nn.Module, dataset: Dataset) -> None:
    """Set the start canvas of a model that has one from the training images."""
    canvas = getattr(model, "start_canvas", None)
    if isinstance(canvas, nn.Parameter) and tuple(canvas.shape) == dataset.size:
        with torch.no_grad():
            pixels = getattr(model, "likelihood", likelihood.Bernoulli)(canvas)
            canvas_of = getattr(pixels, "canvas_of", likelihood.Bernoulli.canvas_of)
            canvas.copy_(start_canvas(dataset.train, canvas_of))


def check_condition(name: str, model: Any, dataset: Dataset) -> None:
    """Raise `Problem` if a model draws from a condition that the data lack, or the reverse."""
    needs, has = getattr(model, "conditional", False), dataset.test.condition is not None
    if needs and not has:
        raise Problem(
            f"{name} draws from captions, but the images of {dataset.name} have none: use "
            "--dataset captions, or another --model"
        )
    if has and not needs:
        raise Problem(
            f"the images of {dataset.name} have captions, but {name} takes none: use --model "
            "aligndraw, or another --dataset"
        )


def loss_terms(
    matmul_dtype: torch.dtype, segment: int | None, model: Any, images: Tensor, *inputs: Tensor
) -> tuple[Tensor, ...]:
    """Return the tensors of a generator's loss, reconstruction and KL (:class:`Terms`): what can be
    recorded on a GPU. The first two arguments are those of :func:`drawbench.fast.forward_for`.
    """
    forward = fast.forward_for(model, matmul_dtype, segment)
    return tuple(forward(images, *inputs).terms(images))
