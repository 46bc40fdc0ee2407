"""NaN and infinity in the loss, a gradient, the data or a weight at some update: it stops before
the update, and nothing is lost.
"""

import math
from collections.abc import Callable

from . import harness
from .harness import SETTINGS, Case, Place, Reference, Tally

COUNT = 24
PLACES = ("loss", "gradient", "data", "weight")


def run(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    chance, task = case.chance(), harness.TASKS[case.number % 2]
    where, value = (
        PLACES[(case.number // 2) % len(PLACES)],
        chance.choice((math.nan, math.inf, -math.inf)),
    )
    settings, words = SETTINGS[task], harness.command(task)
    step = chance.randrange(settings["steps"])
    if task == "classify" and where == "data":
        where = "weight"  # its pictures are bytes, which hold no NaN
    if where == "weight":
        value = math.nan  # behind a weight that is infinite the numbers may be finite
    tally.about = f"{case.again} ({task}, {value} in the {where} of update {step})"
    tally.tried += 1
    ended = place.call(words, before=spoilt(task, where, step, value))
    harness.said_once(tally, ended)
    tally.check("no longer finite" in ended.err, f"the reason is not said: {ended.err[-300:]}")
    harness.intact(tally, place)
    saved = (
        max(step // settings[name] * settings[name] for name in ("save-every", "evaluate-every"))
        or -1
    )
    tally.check(
        harness.saved_step(place.run) == saved,
        f"state of step {harness.saved_step(place.run)}, not {saved}",
        "lost",
    )
    for name in broken(place):
        tally.fault(f"{name} holds numbers that are not finite", "silent")
    harness.finish(tally, place, words, references[task])


def broken(place: Place) -> list[str]:
    """The checkpoints with a number that is not finite."""
    from drawbench import runs

    files = [
        place.run / name
        for name in (runs.LAST, runs.PREVIOUS, runs.BEST)
        if (place.run / name).exists()
    ]
    return [
        file.name
        for file in files
        if not all(tensor.isfinite().all() for tensor in runs.load_checkpoint(file)[0].values())
    ]


def spoilt(task: str, where: str, step: int, value: float) -> Callable[[], None]:
    """What makes a process meet this value at this update."""

    def install() -> None:
        import torch

        from drawbench.tasks import classify, generate

        kind: type = {"classify": classify.ClassificationTask, "generate": generate.GenerationTask}[
            task
        ]
        whole, count = kind.loss, -1  # type: ignore[attr-defined]

        def loss(self, batch):
            nonlocal count
            count += 1
            if count != step:
                return whole(self, batch)
            first = next(self.model.parameters())
            if where == "weight":
                with torch.no_grad():
                    first.view(-1)[0] = value
            elif where == "data":
                batch[0].view(-1)[0] = value
            elif where == "gradient":
                hook = first.register_hook(
                    lambda gradient: (hook.remove(), torch.full_like(gradient, value))[1]
                )
            made, logged = whole(self, batch)
            return (made * value if where == "loss" else made), logged

        kind.loss = loss  # type: ignore[attr-defined]

    return install
