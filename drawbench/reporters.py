"""Listeners of a training: they receive messages, progress and metrics."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from drawbench import distributed
from drawbench.errors import Problem, reason
from drawbench.files import check_inside

if TYPE_CHECKING:
    import numpy as np


class Views(NamedTuple):
    """What a model looks like at a validation, for those who show it."""

    pictures: dict[str, "np.ndarray"]  #: by name, uint8 (H, W, 3)
    values: dict[str, "np.ndarray"]  #: by name, float (N,): histograms, such as where windows are


class Reporter:
    """Receives messages, progress and metrics; by itself it discards them."""

    wants_views = False  #: whether to compute :class:`Views` at each validation: it takes seconds

    def say(self, text: str) -> None:
        """Receive a message: a sentence for the user."""

    def progress(self, step: int, total: int, facts: dict[str, float]) -> None:
        """Receive how many of ``total`` steps are done, with metrics of the moment."""

    def row(self, row: dict[str, Any]) -> None:
        """Receive a row of ``metrics.csv``."""

    def views(self, step: int, views: Views) -> None:
        """Receive pictures and histograms of the model that the last row is about."""

    def result(self, result: dict[str, Any]) -> None:
        """Receive ``result.json``: the run is finished."""

    def close(self) -> None:
        """Free the terminal or the file; more may follow."""


Quiet = Reporter


class Several(Reporter):
    """Passes everything on to several reporters, in order."""

    def __init__(self, *reporters: Reporter):
        self.reporters = reporters
        self.wants_views = any(reporter.wants_views for reporter in reporters)

    def _pass(self, event: str, *arguments: Any) -> None:
        for reporter in self.reporters:
            getattr(reporter, event)(*arguments)

    def say(self, text: str) -> None:
        self._pass("say", text)

    def progress(self, step: int, total: int, facts: dict[str, float]) -> None:
        self._pass("progress", step, total, facts)

    def row(self, row: dict[str, Any]) -> None:
        self._pass("row", row)

    def views(self, step: int, views: Views) -> None:
        self._pass("views", step, views)

    def result(self, result: dict[str, Any]) -> None:
        self._pass("result", result)

    def close(self) -> None:
        self._pass("close")


class Guarded(Several):
    """Passes everything on to a tracker of the user's own, until it fails: a tracker whose server
    does not answer must not cost a training.

    Args:
        name: of the tracker, for the message.
        say: told once that it failed.
    """

    def __init__(self, name: str, tracker: Reporter, say: Callable[[str], object]):
        super().__init__(tracker)
        self.name, self.report_failure = name, say

    def _pass(self, event: str, *arguments: Any) -> None:
        try:
            super()._pass(event, *arguments)
        except Exception as error:
            self.reporters, self.wants_views = (), False
            self.report_failure(
                f"{self.name} failed ({type(error).__name__}: {reason(error)}); it receives "
                "nothing more, and the training goes on."
            )


class TensorBoard(Reporter):
    """Writes scalars, histograms and pictures for TensorBoard into a folder; of several processes
    the first does.

    Raises:
        Problem: the ``tensorboard`` package is missing, or the folder is a link.
    """

    wants_views = True

    def __init__(self, folder: Path):
        check_inside(folder, folder.parent)  # in a stranger's run folder it could lead anywhere
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise Problem(
                "TensorBoard logs need the tensorboard package; "
                "install it with: pip install 'drawbench[tensorboard]'"
            ) from error
        self._open, self._folder = SummaryWriter, folder
        self._writer: Any = None

    def row(self, row: dict[str, Any]) -> None:
        if distributed.rank():
            return
        # Purging makes the first row of a resumed run replace those of a process that was killed.
        if self._writer is None:
            self._writer = self._open(str(self._folder), purge_step=row["step"])
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def views(self, step: int, views: Views) -> None:
        if self._writer is None:  # not the first process, or no row yet
            return
        for name, picture in views.pictures.items():
            self._writer.add_image(name, picture, step, dataformats="HWC")
        for name, values in views.values.items():
            self._writer.add_histogram(name, values, step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
