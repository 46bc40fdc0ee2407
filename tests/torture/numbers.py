"""NaN and infinity in the loss, a gradient or a weight at a random update.

The training has to stop before the update, with every saved state sound.
"""

import math
from collections.abc import Callable
from pathlib import Path

from . import checks
from .checks import Case, Tally
from .processes import SETTINGS, TASKS, Place, Reference, command

COUNT = 18
WHERE = ("loss", "gradient", "weight")


def run(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    chance, task = case.chance(), TASKS[case.number % 2]
    where = WHERE[(case.number // 2) % len(WHERE)]
    # The numbers after an infinite weight may be finite again, as in tanh.
    value = math.nan if where == "weight" else chance.choice((math.nan, math.inf, -math.inf))
    intervals = [SETTINGS[task][name] for name in ("checkpoint-every", "evaluate-every")]
    step = chance.randrange(SETTINGS[task]["steps"])
    while any(step % interval == 0 for interval in intervals):  # a save would come in between
        step = chance.randrange(SETTINGS[task]["steps"])
    tally.about = f"{case.repeat} ({task}, {value} in the {where} of update {step})"
    tally.tried += 1
    words = command(task)
    ended = place.call(words, before=spoil(where, step, value))
    checks.explained(tally, ended)
    tally.check("finite" in ended.err, f"the reason is missing: {ended.err[-300:]}")
    checks.intact(tally, place)
    expected = max((step // interval * interval for interval in intervals), default=0) or -1
    saved = checks.saved_step(place.run)
    tally.check(saved == expected, f"the state is of step {saved}, not {expected}", "lost")
    for name in broken(place.run):
        tally.fault(f"{name} holds numbers that are not finite", "silent")
    checks.finish(tally, place, words, references[task])


def broken(run: Path) -> list[str]:
    """List the checkpoints with a number that is not finite."""
    runs = checks.runs
    files = [run / name for name in (runs.LAST, runs.PREVIOUS, runs.BEST) if (run / name).exists()]
    return [
        file.name
        for file in files
        if not all(tensor.isfinite().all() for tensor in runs.load_checkpoint(file)[0].values())
    ]


def spoil(where: str, step: int, value: float) -> Callable[[], None]:
    """Return what makes a process meet ``value`` at this update, through torch alone."""

    def install() -> None:
        import torch
        from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

        zero_grad, backward, updates = Optimizer.zero_grad, torch.Tensor.backward, 0

        def counting_zero_grad(self, set_to_none: bool = True) -> None:
            nonlocal updates
            zero_grad(self, set_to_none)
            if where == "gradient" and updates == step:
                handle = self.param_groups[0]["params"][0].register_hook(
                    lambda gradient: (handle.remove(), torch.full_like(gradient, value))[1]
                )

        def counting_backward(self, *arguments, **settings) -> None:
            nonlocal updates
            loss = self * value if where == "loss" and updates == step else self
            updates += 1
            backward(loss, *arguments, **settings)

        def spoil_weight(optimizer, *_) -> None:
            if where == "weight" and updates == step:
                optimizer.param_groups[0]["params"][0].data.view(-1)[0] = value

        Optimizer.zero_grad = counting_zero_grad
        torch.Tensor.backward = counting_backward
        register_optimizer_step_post_hook(spoil_weight)

    return install
