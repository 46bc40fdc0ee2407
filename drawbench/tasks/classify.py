"""Classification: a network names what an image shows; its error on the test images."""

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drawbench import fast, streams
from drawbench.data.batch import Batch
from drawbench.data.dataset import Dataset
from drawbench.errors import Problem
from drawbench.evaluation import error_rate
from drawbench.evaluation.cost import cost
from drawbench.evaluation.paired import ERROR, Outcomes
from drawbench.fast.graphs import Recorder
from drawbench.reporters import Views
from drawbench.runs import Run
from drawbench.tasks import common
from drawbench.tasks.task import Check, Measurement, Progress


def noise(index: Tensor, model: Any, seed: int, name: str) -> Tensor:
    """Return the noise of images number ``index`` (B,): float32 (B, model.noise)."""
    return streams.normals(index, model.noise, seed, "noise", name).float()


class Classify:
    """A :class:`drawbench.tasks.task.Task`: cross-entropy, selected by validation error.

    Raises:
        Problem: the precision needs a GPU and there is none.
    """

    name: ClassVar[str] = "classify"
    selected_by: ClassVar[str] = "validation_error"
    length_hint: ClassVar[str] = "Published results take hours: --recipe paper-8."

    def __init__(self, config: Any, dataset: Dataset, model: Any, device: torch.device):
        self.config, self.dataset, self.model, self.device = config, dataset, model, device
        self.train = dataset.train.to(streams.exact_device(device))
        self.matmul_dtype = common.matmul_dtype(config.training, device)
        replays = common.replays(config.training, device, model)
        terms = partial(loss_terms, self.matmul_dtype, config.training.intermediate)
        self.terms = Recorder(self.matmul_dtype, terms) if replays else terms
        self.images_per_epoch = len(dataset.train)

    @property
    def about(self) -> dict[str, Any]:
        names = list(self.dataset.classes or ())
        return {"size": list(self.dataset.size), "classes": len(names), "names": names}

    @property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint

    @property
    def conditions(self) -> tuple[str, ...]:
        varied = ("clutter", "canvas") if self.dataset.under is not None else ()
        return (*varied, *(("glimpses",) if hasattr(self.model, "glimpses") else ()))

    # -- training

    def batch(self, first: int, count: int) -> tuple[Batch, Tensor | None]:
        """Return training samples, and the noise that the model asks for."""
        drawn = None
        if getattr(self.model, "noise", 0):
            device = streams.exact_device(self.device)
            index = torch.arange(first, first + count, device=device)
            drawn = noise(index, self.model, self.config.training.seed, "train")
        return self.train.batch(first, count), drawn

    def loss(self, batch: tuple[Batch, Tensor | None]) -> tuple[Tensor, dict[str, Tensor]]:
        (images, labels, _), drawn = batch[0].to(self.device), batch[1]
        assert labels is not None
        noise = () if drawn is None else (drawn.to(self.device),)
        with common.blame(self.config):
            loss, final, error = self.terms(self.model, images, labels, *noise)
        return loss, {"loss": final, "error": error}

    def validate(self, model: nn.Module, check: Check) -> dict[str, float]:
        part = self.dataset.validation
        assert part.labels is not None
        probabilities = error_rate.predict(common.measurable(model), part.images, check=check)
        answers = probabilities[:, -1].double().clamp_min(1e-38).log()
        score = error_rate.score(probabilities, part.labels.numpy())
        return {
            "validation_loss": float(F.nll_loss(answers, part.labels)),
            "validation_error": score.percent,
        }

    def views(self, model: Any) -> Views:
        from drawbench.tasks.pictures import classifier_views

        return classifier_views(model, self.dataset)

    # -- measuring

    def test(
        self, model: Any, check: Check, progress: Progress, *, batch: int = 250
    ) -> Measurement:
        return measure(model, self.dataset, self.config.training.seed, batch, check)

    def against(
        self, model: Any, condition: str, values: list[int], check: Check
    ) -> list[dict[str, Any]]:
        if condition not in self.conditions:
            name = f"{self.config.model.model} on {self.dataset.name}"
            raise Problem(f"{name} has no {condition} to vary")
        if condition == "glimpses":
            test = self.dataset.test
            answers = error_rate.predict(model, test.images, glimpses=max(values), check=check)
            return [_row(condition, value, answers[:, :value], test.labels) for value in values]
        assert self.dataset.under is not None
        rows = []
        for value in values:
            parts = [
                (error_rate.predict(model, part.images, check=check), part.labels)
                for part in self.dataset.under(condition, value)
            ]
            rows.append(_row(condition, value, *map(torch.cat, zip(*parts, strict=True))))
        return rows

    # -- telling

    def facts(self) -> dict[str, Any]:
        data = self.config.data
        fixed = getattr(data, "fixed_train", None)
        return {
            "model": self.config.model.model,
            "dataset": self.dataset.name,
            "source": self.dataset.source,
            "glimpses": getattr(self.model, "glimpses", None),
            "clutter": None if fixed is None else "fixed" if fixed else "fresh",
        }

    def draw(self, run: Run, model: Any, result: dict[str, Any], pictures: int) -> list[Path]:
        from drawbench.tasks.pictures import classifier_pictures

        return classifier_pictures(run, model, self.dataset, result)


def loss_terms(
    matmul_dtype: torch.dtype,
    intermediate: float,
    model: Any,
    images: Tensor,
    labels: Tensor,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is minimized, the cross-entropy of the last answer, and its error in percent.

    Args:
        matmul_dtype: of the products with weights; see :func:`drawbench.fast.forward_for`.
        intermediate: weight of the cross-entropy of each earlier answer.
        images: uint8 (B, C, H, W).
        labels: (B,).
        noise: (B, ``model.noise``), of a model that draws where it looks.
    """
    wishes = {} if noise is None else {"noise": noise}
    record = fast.forward_for(model, matmul_dtype)(images, **wishes)
    logits = record.logits.float()
    loss = final = F.cross_entropy(logits[:, -1], labels)
    wrong = (logits[:, -1].argmax(dim=-1) != labels).float().mean()
    earlier = logits[:, :-1]
    if intermediate and earlier.shape[1]:
        repeated = labels.repeat_interleave(earlier.shape[1])
        loss = loss + intermediate * F.cross_entropy(earlier.flatten(0, 1), repeated)
    added_loss = getattr(model, "added_loss", None)
    if added_loss is not None:
        loss = loss + added_loss(record, labels)
    return loss, final.detach(), 100 * wrong


def _row(condition: str, value: int, probabilities: Tensor, labels: Any) -> dict[str, Any]:
    score = error_rate.score(probabilities, labels.numpy())
    low, high = score.interval
    return {condition: value, "error": score.percent, "low": low, "high": high, "n": score.n}


def measure(
    model: Any, dataset: Dataset, seed: int = 0, batch: int = 250, check: Check = lambda: None
) -> Measurement:
    """Measure a classifier on the test images of a data set.

    Args:
        seed: of the noise, for a model that samples where it looks.
        batch: images at a time.
    """
    part = dataset.test
    assert part.labels is not None and dataset.classes is not None
    labels = part.labels.numpy()
    probabilities = error_rate.predict(model, part.images, batch=batch, check=check)
    score = error_rate.score(probabilities, labels)
    sampled = {}
    if getattr(model, "noise", 0):
        # The error above is that of the means; this one is with noise, as in training.
        index = torch.arange(len(part))
        drawn = noise(index, model, seed, "test")
        again = error_rate.predict(model, part.images, batch=batch, noise=drawn, check=check)
        sampled["sampled_error"] = error_rate.score(again, labels).percent
    (low, high), (channels, height, width) = score.interval, dataset.size
    wrong = probabilities[:, -1].argmax(dim=-1).numpy() != labels
    outcomes = Outcomes(ERROR, part.sha256(labels=True), wrong.astype(np.uint8))
    fields = {
        "metric": ERROR,
        "value": score.percent,
        "low": low,
        "high": high,
        "n": score.n,
        "errors": score.errors,
        **cost(model, height, width, channels)._asdict(),
        "chance_error": 100 * (1 - 1 / len(dataset.classes)),
        "majority_error": score.majority,
        "classes": list(dataset.classes),
        "per_class_error": score.per_class,
        "errors_after_glimpse": score.errors_after.tolist(),
        "confusion": score.confusion.tolist(),
        "test_sha256": outcomes.test_sha256,
        **sampled,
    }
    return Measurement(fields, outcomes)
