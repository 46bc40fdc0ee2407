"""SIGTERM and SIGINT, once and twice, and chains of five interruptions of all kinds."""

import signal

from . import harness
from .harness import Case, Place, Reference, Tally

COUNT = 48
CHAIN = 5
TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL
KINDS = ((TERM,), (INT,), (TERM, TERM), (INT, INT), (), ())  # (): a chain


def run(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    chance = case.chance()
    task = harness.TASKS[case.number % 2]
    reference, words = references[task], harness.command(task)
    signals = KINDS[(case.number // 2) % len(KINDS)]
    cold = bool(signals) and case.cold
    blows = [harness.draw(chance, reference, signals, cold=cold)]
    if not signals:
        blows = [
            harness.draw(
                chance,
                reference,
                chance.choice(((KILL,), (TERM,), (INT,), (INT, INT))),
                longest=1 / 6,
            )
            for _ in range(CHAIN)
        ]
    tally.about = f"{case.again} ({task}, {'; '.join(str(blow) for blow in blows)})"
    next_words = words
    for blow in blows:
        before = harness.saved_step(place.run)
        ended, hit = harness.struck(place, next_words, reference, blow)
        tally.tried += hit
        _held_to(tally, ended, blow, hit)
        harness.intact(tally, place, before)
        next_words = harness.onwards(tally, place, words)
    harness.finish(tally, place, words, reference)


def _held_to(tally: Tally, ended: harness.Ended, blow: harness.Blow, hit: bool) -> None:
    """What is promised about the end of a process that was sent these signals."""
    number = blow.signals[-1]
    before_us = (
        blow.cold and "drawbench" not in ended.err
    )  # Python itself was still starting, and answers as it does
    if number == KILL or before_us:
        return
    harness.no_traceback(tally, ended)
    statuses = {0, 128 + number} | ({-number} if number == TERM or len(blow.signals) > 1 else set())
    tally.check(
        ended.status in (statuses if hit else {0}),
        f"exit status {ended.status}: {ended.err[-600:]}",
    )
    if ended.status == 128 + number:
        tally.check(
            ended.last_line.startswith("Stopped"),
            f"it does not say that it stopped: {ended.err[-600:]}",
        )
