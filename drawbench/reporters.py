"""Listeners of a training: they receive messages, progress and metrics."""

from pathlib import Path
from typing import Any

from drawbench import distributed
from drawbench.errors import Problem
from drawbench.files import check_inside


class Reporter:
    """Receives messages, progress and metrics; by itself it discards them."""

    def say(self, text: str) -> None:
        """Receive a message: a sentence for the user."""

    def progress(self, step: int, total: int, facts: dict[str, float]) -> None:
        """Receive how many of ``total`` steps are done, with metrics of the moment."""

    def row(self, row: dict[str, Any]) -> None:
        """Receive a row of ``metrics.csv``."""

    def close(self) -> None:
        """Free the terminal or the file; more may follow."""


Quiet = Reporter


class Several(Reporter):
    """Passes everything on to several reporters, in order."""

    def __init__(self, *reporters: Reporter):
        self.reporters = reporters

    def say(self, text: str) -> None:
        for reporter in self.reporters:
            reporter.say(text)

    def progress(self, step: int, total: int, facts: dict[str, float]) -> None:
        for reporter in self.reporters:
            reporter.progress(step, total, facts)

    def row(self, row: dict[str, Any]) -> None:
        for reporter in self.reporters:
            reporter.row(row)

    def close(self) -> None:
        for reporter in self.reporters:
            reporter.close()


class TensorBoard(Reporter):
    """Writes each row as TensorBoard scalars into a folder; of several processes the first does.

    Raises:
        Problem: the ``tensorboard`` package is missing, or the folder is a link.
    """

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

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
