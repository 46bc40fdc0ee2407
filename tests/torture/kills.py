"""SIGKILL at random instants over training, evaluation, saving and drawing, and while files are
written; each followed by ``resume``.

Every eighth begins as ``python cli.py`` from its first moment, the imports included.
"""

import signal

from . import harness
from .harness import Case, Place, Reference, Tally

COUNT = 200


def run(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    chance = case.chance()
    task = harness.TASKS[case.number % 2]
    reference, words = references[task], harness.command(task)
    longest = 1.0
    while True:
        blow = harness.draw(
            chance, reference, (signal.SIGKILL,), longest=longest, cold=case.cold and longest == 1.0
        )
        tally.about = f"{case.again} ({task}, {blow})"
        ended, hit = harness.struck(place, words, reference, blow)
        if hit and ended.status == -signal.SIGKILL:
            break
        # It was done already: a process takes a little less time than another. Once more, earlier,
        # in an empty folder.
        tally.check(
            ended.status == 0, f"it ended by itself with status {ended.status}: {ended.err[-600:]}"
        )
        longest *= 0.8
        harness.emptied(place)
    tally.tried += 1
    harness.intact(tally, place)
    harness.finish(tally, place, words, reference)
