"""The classification experiment: digits in clutter, a network that names them, its error on the
test file.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drawbench import config as configs
from drawbench import distributed, models, streams
from drawbench.config import Classify
from drawbench.data import scenes, sources, store
from drawbench.data.scenes import Scene
from drawbench.errors import Problem
from drawbench.evaluation import error_rate
from drawbench.evaluation.cost import Cost, cost
from drawbench.evaluation.paired import ERROR, Outcomes
from drawbench.fast.glimpse import fast_logits
from drawbench.fast.graphs import Recorder
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.one_look import Answer
from drawbench.runs import Run
from drawbench.tasks import common
from drawbench.training import Reporter, StopFlag, Trainer, plan

CLASSES = 10
CHUNK = 1000  # scenes made at a time where they are not stored


def scene_of(data: configs.SceneData) -> Scene:
    """The scene that settings describe.

    Raises:
        Problem: it cannot be rendered.
    """
    try:
        return Scene(
            canvas=data.canvas,
            digits=data.digits,
            clutter=data.clutter,
            clutter_size=data.clutter_size,
        )
    except ValueError as error:
        raise Problem(str(error)) from error


def build(config: Classify) -> nn.Module:
    """The network with the initial weights of its seed.

    Raises:
        Problem: it cannot be made for the canvas.
    """
    try:
        with streams.seeded(config.training.seed, "weights"):
            return models.build_classifier(
                config.model, (config.data.canvas, config.data.canvas), CLASSES
            )
    except ValueError as error:
        raise Problem(str(error)) from error


class FreshScenes:
    """Training images made as they are needed: sample ``n`` is a function of (seed, n)."""

    def __init__(self, digits: sources.Digits, scene: Scene, seed: int, distortion: float = 0.0):
        self.digits, self.scene, self.seed, self.distortion = digits, scene, seed, distortion

    def __len__(self) -> int:
        return len(self.digits.images)

    def batch(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Samples ``first .. first + count - 1``: uint8 (B, H, W), int64 (B,)."""
        index = torch.arange(first, first + count)
        made = scenes.fresh(
            self.digits, self.scene, index, self.seed, "train", distortion=self.distortion
        )
        return made.images, made.labels[:, 0].long()

    def to(self, device: torch.device) -> "FreshScenes":
        """The same scenes, rendered on another device."""
        return FreshScenes(self.digits.to(device), self.scene, self.seed, self.distortion)


class StoredScenes:
    """The images of ``train.npz``, in a new random order every epoch."""

    def __init__(self, images: Tensor, labels: Tensor, seed: int):
        self.images, self.labels, self.seed = images, labels.long(), seed

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """As :meth:`FreshScenes.batch`."""
        which = scenes.targets(
            torch.arange(first, first + count), len(self), self.seed, "train"
        ).to(self.images.device)
        return self.images[which], self.labels[which]

    def to(self, device: torch.device) -> "StoredScenes":
        """The same images on another device."""
        return StoredScenes(self.images.to(device), self.labels.to(device), self.seed)


def noise(index: Tensor, model: Any, seed: int, name: str) -> Tensor:
    """The noise that a model wants for images number ``index`` (B,): float32 (B, model.noise), a
    function of number, seed and name.
    """
    return streams.normals(index, model.noise, seed, "noise", name).float()


class ClassificationTask:
    """A :class:`drawbench.training.Task`: cross-entropy of the last answer and what a model adds to
    it, selected by validation error.
    """

    selected_by = "validation_error"

    def __init__(
        self,
        model: Any,
        train: FreshScenes | StoredScenes,
        validation: Any,
        config: Classify,
        device: torch.device,
    ):
        self.model, self.train, self.validation, self.device = (
            model,
            train.to(device),
            validation,
            device,
        )
        self.about: dict[str, Any] = {}  # the configuration says it all
        self.intermediate = config.training.intermediate
        self.products = common.products_of(config.training, device)
        self.recorder = Recorder(self.products) if config.training.graph else None
        self.images_per_epoch = len(train)
        self.seed = config.training.seed

    def batch(self, first: int, count: int) -> tuple[Tensor, ...]:
        """Images uint8 (B, H, W), labels int64 (B,) and, where the model wants some, noise (B,
        model.noise).
        """
        parts: tuple[Tensor, ...] = self.train.batch(first, count)
        if hasattr(self.model, "noise"):
            parts = (
                *parts,
                noise(
                    torch.arange(first, first + count, device=self.device),
                    self.model,
                    self.seed,
                    "train",
                ),
            )
        return parts

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        images, labels, *noise = batch
        seen = self._look(images, *noise)
        logits = seen.logits.float()
        final = F.cross_entropy(logits[:, -1], labels)
        wrong = (logits[:, -1].argmax(dim=-1) != labels).float().mean()
        total = final
        if self.intermediate and logits.shape[1] > 1:
            earlier = logits[:, :-1]
            total = final + self.intermediate * F.cross_entropy(
                earlier.flatten(0, 1), labels.repeat_interleave(earlier.shape[1])
            )
        if hasattr(self.model, "added_loss"):
            total = total + self.model.added_loss(seen, labels)
        return total, {"loss": final.detach(), "error": 100 * wrong}

    def _look(self, images: Tensor, noise: Tensor | None = None) -> Any:
        """What the model says of uint8 images (B, H, W), by the fast path where it has one."""
        if self.recorder is not None:
            if noise is not None:
                raise Problem(
                    "--graph records a model that gets images alone, but this one draws where it looks; leave it out"
                )
            return Answer(
                self.recorder.of(self.model).logits(error_rate.as_input(images, self.device))
            )
        if isinstance(self.model, GlimpseClassifier):
            return Answer(fast_logits(self.model, images[:, None], products=self.products))
        wishes = {} if noise is None else {"noise": noise}
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.products == torch.bfloat16
        ):
            return self.model(error_rate.as_input(images, self.device), **wishes)

    def validate(self, model: nn.Module, check: Callable[[], None]) -> dict[str, float]:
        with common.exactly():
            probabilities = error_rate.predict(model, self.validation.images, check=check)
        labels = torch.from_numpy(self.validation.labels).long()
        loss = F.nll_loss(probabilities[:, -1].double().clamp_min(1e-38).log(), labels)
        return {
            "validation_loss": float(loss),
            "validation_error": error_rate.score(probabilities, self.validation.labels).percent,
        }


# ---------------------------------------------------------------------------------------- the whole


class Experiment:
    """Everything that a classification run needs: its data, found or made, and the steps from
    training to the result.

    Args: config: with ``source`` possibly ``auto``; :attr:`config` has the source that was found.
        sources_root, datasets_root: folders of original files and of generated data sets; the
        second may be a data set itself. reporter: is told what goes on.
    """

    def __init__(
        self,
        config: Classify,
        sources_root: Path,
        datasets_root: Path,
        reporter: Reporter,
        *,
        download: bool = True,
    ):
        if config.data.digits != 1:
            raise Problem(
                f"a classifier names one digit, but the data set has {config.data.digits} in each image; use --digits 1"
            )
        if config.training.fixed_train and config.training.distortion:
            raise Problem(
                "stored training images are shown as they are; leave out --fixed-train or --distortion"
            )
        self.scene = scene_of(config.data)
        self.device = common.device_of(config.training.device)
        threads = common.use_threads(config.training)
        self.reporter = reporter
        with distributed.in_turn():
            self.source = sources.load(
                config.data.source, sources_root, download=download, warn=reporter.say
            )
            found = {
                "source": self.source.name,
                "threads": threads,
                "processes": distributed.size(),
            }
            self.config: Classify = configs.replace(config, **found)
            self.folder = prepare_data(self.config.data, self.source, datasets_root, reporter)
        common.check_same(self.config)

    def task(self) -> ClassificationTask:
        """The task with a freshly initialised network."""
        train: FreshScenes | StoredScenes
        if self.config.training.fixed_train:
            stored = store.load(self.folder, "train")
            train = StoredScenes(
                torch.from_numpy(stored.images),
                torch.from_numpy(stored.labels),
                self.config.training.seed,
            )
        else:
            training = self.config.training
            train = FreshScenes(
                self.source.splits["train"], self.scene, training.seed, training.distortion
            )
        validation = store.load(self.folder, "validation")
        return ClassificationTask(
            build(self.config).to(self.device), train, validation, self.config, self.device
        )

    def plan(self) -> None:
        """Fix the number of steps in the configuration; may measure the machine for a minute at
        most.
        """
        self.config = plan(self.task(), self.config, self.reporter.say)

    def train(self, run: Run, flag: StopFlag) -> Trainer:
        """Train, or go on training, to the end; see :func:`drawbench.tasks.common.train`."""
        return common.train(self.task(), run, self.reporter, flag)

    def test(self, run: Run, flag: StopFlag) -> "Tested":
        """Score the best weights of a run on the test file; what they make of each image is kept in
        the run folder.
        """
        model = load_model(run).to(self.device)
        test = store.load(self.folder, "test")
        probabilities = error_rate.predict(model, test.images, check=flag.check)
        score = error_rate.score(probabilities, test.labels)
        sampled = None
        if hasattr(model, "noise"):
            drawn = noise(torch.arange(len(test.images)), model, run.config.training.seed, "test")
            sampled = error_rate.score(
                error_rate.predict(model, test.images, noise=drawn, check=flag.check), test.labels
            )
        distributed.by_first(outcomes(probabilities, test).save)(run.folder)
        return Tested(score, sampled, cost(model, self.scene.canvas, self.scene.canvas), model)


class Tested(NamedTuple):
    """What was measured of a trained network."""

    score: error_rate.Score
    sampled: (
        error_rate.Score | None
    )  #: with noise, as in training, where the network has any; else the score is with none
    cost: Cost
    model: nn.Module


def prepare_data(
    data: configs.SceneData, source: sources.Source, root: Path, reporter: Reporter
) -> Path:
    """The folder of the data set that settings describe, made if it is not there."""
    scene = scene_of(data)
    folder = store.default_folder(root, scene, data.dataset, source.name, data.data_seed)
    if not (folder / "card.json").is_file():
        reporter.say(f"Making {folder} (once; drawbench make-data does the same).")
    store.write(
        folder,
        scene,
        source,
        data.dataset,
        data.data_seed,
        progress=lambda done, total: reporter.progress(done, total, {}),
    )
    return folder


def load_model(run: Run) -> nn.Module:
    """The network of a run with its best weights, ready to measure.

    Raises: Problem: the run is not a classifier's, has no weights yet, or they are damaged or do
        not fit.
    """
    if run.config.task != "classify":
        raise Problem(f"{run.folder} is a run of {run.config.task!r}, not of a classifier")
    return common.load_weights(lambda: build(run.config), run)


def outcomes(probabilities: Tensor, test: store.Scenes) -> Outcomes:
    """Which test images the last answer gets wrong.

    Args:
        probabilities: (N, T, classes), of the test images in their order.
    """
    images = hashlib.sha256(test.images)
    images.update(test.labels)
    wrong = probabilities[:, -1].argmax(dim=-1).numpy() != test.labels
    return Outcomes(ERROR, images.hexdigest(), wrong.astype(np.uint8))


def result(config: Classify, tested: Tested, trainer: Trainer, command: str) -> dict[str, Any]:
    """The content of ``result.json``."""
    training = config.training
    best = next(row for row in trainer.rows if row["validation_error"] == trainer.best)
    sampled = {} if tested.sampled is None else {"sampled_error": tested.sampled.percent}
    return {
        "task": config.task,
        "model": config.model.model,
        **measured(config.data, tested.score, tested.cost),
        **sampled,
        "seed": training.seed,
        "steps": trainer.step,
        "images_seen": trainer.step * training.batch,
        "start": training.start,
        "train_seconds": round(trainer.seconds, 1),
        "glimpses": config.model.glimpses if config.model.model in configs.GLIMPSING else None,
        "clutter": "fixed" if training.fixed_train else "fresh",
        "validation_error": best["validation_error"],
        "best_step": best["step"],
        "command": command,
    }


def measured(data: configs.SceneData, score: error_rate.Score, cost: Cost) -> dict[str, Any]:
    """The part of ``result.json`` that is measured on the test file, whoever trained the network."""
    low, high = score.interval
    return {
        "dataset": store.default_folder(
            Path(), scene_of(data), data.dataset, data.source, data.data_seed
        ).name,
        "source": data.source,
        "metric": ERROR,
        "value": score.percent,
        "low": low,
        "high": high,
        "n": score.n,
        "errors": score.errors,
        **cost._asdict(),
        "chance_error": 100 * (1 - 1 / CLASSES),
        "majority_error": score.majority,
        "per_class_error": score.per_class,
        "errors_after_glimpse": score.errors_after.tolist(),
        "confusion": score.confusion.tolist(),
    }


# ------------------------------------------------------------------ outside the training conditions


def against_scenes(
    model: nn.Module,
    source: sources.Source,
    base: configs.SceneData,
    condition: str,
    values: list[int],
    check: Callable[[], None],
) -> list[dict[str, Any]]:
    """Test error where one thing about the scenes differs from training: the same test digits in
    the same order, other surroundings.

    Args:
        condition: ``"clutter"`` or ``"canvas"``.
        values: of the condition.

    Returns: A row for each value: the condition, ``error``, ``low``, ``high`` (95 %), percent, and
        ``n``.
    """
    part, rows = source.splits["test"], []
    for value in values:
        scene = scene_of(configs.SceneData(**{**vars(base), condition: value}))
        answers, labels = [], []
        for first in range(0, len(part), CHUNK):
            # The name and numbers of the stored test file: in the trained condition these are its
            # very images.
            index = torch.arange(first, min(first + CHUNK, len(part)))
            made = scenes.fresh(part, scene, index, base.data_seed, "set", "test")
            answers.append(error_rate.predict(model, made.images, check=check))
            labels.append(made.labels[:, 0])
        rows.append(
            {
                condition: value,
                **_error(error_rate.score(torch.cat(answers), torch.cat(labels).numpy())),
            }
        )
    return rows


def against_glimpses(
    model: nn.Module, test: store.Scenes, values: list[int], check: Callable[[], None]
) -> list[dict[str, Any]]:
    """Test error when the model looks more or less often than in training; rows as
    :func:`against_scenes`.

    Raises:
        Problem: it looks at the whole image, once.
    """
    if not hasattr(model, "glimpses"):
        raise Problem(
            "this network looks at the whole image, once; it has no number of glimpses to change"
        )
    probabilities = error_rate.predict(model, test.images, glimpses=max(values), check=check)
    return [
        {"glimpses": value, **_error(error_rate.score(probabilities[:, :value], test.labels))}
        for value in values
    ]


def _error(score: error_rate.Score) -> dict[str, Any]:
    low, high = score.interval
    return {"error": score.percent, "low": low, "high": high, "n": score.n}
