"""The protocol that every command drives, and what happens to a task from training to its result.

A task is a model with its data and its settings. To add one, write a class with these attributes
and methods and name its module in :data:`drawbench.tasks.TASKS`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from drawbench import distributed, records, streams
from drawbench.data.dataset import Dataset
from drawbench.errors import Problem
from drawbench.evaluation.paired import Outcomes
from drawbench.reporters import Reporter, Views
from drawbench.runs import Run
from drawbench.tasks import weights
from drawbench.training import StopFlag, Trainer

Check = Callable[[], None]  # called between batches; raises Interrupted after a signal
Progress = Callable[[int, int], object]  # called with the images done and to be done


class Measurement(NamedTuple):
    """What was measured on the test images."""

    fields: dict[str, Any]  #: their part of ``result.json``
    outcomes: Outcomes  #: the loss of each image


class Task(Protocol):
    """A model, its data and its settings: what is trained, measured and drawn."""

    name: ClassVar[str]  #: of the command and of ``config.task``
    selected_by: ClassVar[str]  #: the validation metric (less is better) of the best weights
    length_hint: ClassVar[str]  #: advice for a training without a length
    config: Any  #: complete: nothing in it is ``auto``
    dataset: Dataset
    model: Any  #: an ``nn.Module``
    device: torch.device
    images_per_epoch: int
    conditions: tuple[str, ...]  #: what :meth:`against` can vary

    @property
    def about(self) -> dict[str, Any]:
        """What a reader of the weights needs besides the configuration to build the model."""

    @property
    def fingerprint(self) -> str:
        """A hash of the data; a resumed training must find the same."""

    def batch(self, first: int, count: int) -> Any:
        """Return training samples ``first .. first + count - 1``, a function of these numbers."""

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss and the metrics to log (means over the batch, main metric first).

        Tensors without gradient, so that a GPU need not be waited for.
        """

    def validate(self, model: Any, check: Check) -> dict[str, float]:
        """Measure a model on the validation images."""

    def views(self, model: Any) -> Views:
        """Return pictures and histograms of a model in training, on validation images."""

    def test(self, model: Any, check: Check, progress: Progress, **options: Any) -> Measurement:
        """Measure a model on the test images; ``options`` are those of ``drawbench evaluate``."""

    def against(
        self, model: Any, condition: str, values: list[int], check: Check
    ) -> list[dict[str, Any]]:
        """Measure a model where one condition differs from training; return a row per value."""

    def facts(self) -> dict[str, Any]:
        """Return what ``result.json`` says of the model and the data."""

    def draw(self, run: Run, model: Any, result: dict[str, Any], pictures: int) -> list[Path]:
        """Draw the figures of a run into its folder; return the files."""


def train(task: Task, run: Run, reporter: Reporter, flag: StopFlag) -> Trainer:
    """Train from the run's last state, or from the start, to the end.

    Raises:
        Interrupted: a signal came; the state is saved.
        Problem: the run is finished, its state does not fit, or the loss is no longer finite.
    """
    trainer = Trainer(task, run, reporter)
    trainer.restore()
    if run.finished and trainer.step == trainer.total:
        return trainer  # its result is damaged and will be measured again
    if run.config.training.start is not None and not trainer.step:
        tensors, _ = Run.open(Path(run.config.training.start)).load_best()
        trainer.start_from(tensors)
    trainer.fit(flag)
    return trainer


def measure(task: Task, run: Run, reporter: Reporter, check: Check, **options: Any) -> Measurement:
    """Measure the best weights of a run on the test images."""
    model = best_model(task, run)
    return task.test(
        model, check, lambda done, total: reporter.progress(done, total, {}), **options
    )


def best_model(task: Task, run: Run) -> nn.Module:
    """Return the model of a task with the best weights of a run, ready to measure."""
    return weights.load(lambda: task.model, run, task.dataset).to(streams.exact_device(task.device))


@distributed.by_first
def conclude(
    task: Task,
    run: Run,
    trainer: Trainer,
    measurement: Measurement,
    reporter: Reporter,
    pictures: int,
) -> tuple[dict[str, Any], list[Path]]:
    """Write the outcomes, the figures and, last, the result, which makes the run a finished one.

    Returns:
        The content of ``result.json`` and the figures written.
    """
    best = next(row for row in trainer.rows if row[task.selected_by] == trainer.best)
    training = run.config.training
    result = {
        "task": task.name,
        **task.facts(),
        **measurement.fields,
        "seed": training.seed,
        "steps": trainer.step,
        "images_seen": trainer.step * training.batch,
        "start": training.start,
        "train_seconds": round(trainer.seconds, 1),
        task.selected_by: best[task.selected_by],
        "best_step": best["step"],
        "command": run.command,
    }
    records.check_result(result)
    measurement.outcomes.save(run.folder)
    try:
        figures = task.draw(run, task.model, result, pictures) if training.figures else []
    except Problem:  # such as a full disk: the run stays unfinished, and resume draws them
        raise
    except Exception as error:  # which must not cost the result of a training
        figures, text = [], " ".join(str(error).split())
        reporter.say(
            f"The figures could not be drawn ({type(error).__name__}: {text[:300]}); the result is "
            f"safe. Draw them with: drawbench plot {run.folder}"
        )
    run.write_result(result)
    reporter.result(result)
    return result, figures
