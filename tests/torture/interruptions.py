"""SIGKILL, SIGTERM and SIGINT at random instants, chains of five included; then ``resume``."""

import shutil
import signal

from . import checks
from .checks import Case, Tally
from .processes import TASKS, Blow, Ended, Place, Reference, command, random_blow, strike

CHAIN = 5
TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL
KINDS = ((TERM,), (INT,), (TERM, TERM), (INT, INT), None, None)  # None: a chain
LINKS = ((KILL,), (TERM,), (INT,), (INT, INT))


def kills(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    """Kill a training anywhere: data making, training, evaluation, saving, drawing."""
    chance, task = case.chance(), TASKS[case.number % 2]
    reference, words, longest, cold = references[task], command(task), 1.0, case.whole
    while True:
        blow = random_blow(chance, reference, (KILL,), longest=longest, cold=cold)
        tally.about = f"{case.repeat} ({task}, {blow})"
        ended, hit = strike(place, words, reference, blow)
        if hit and ended.status == -KILL:
            break
        # It was faster than the reference and had ended already: strike earlier.
        checks.succeeded(tally, ended)
        longest, cold = 0.8 * longest, False
        shutil.rmtree(place.folder)
        place.folder.mkdir()
    tally.tried += 1
    checks.intact(tally, place)
    checks.finish(tally, place, words, reference)


def signals(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    """Send one or two signals, or interrupt five times in a row."""
    chance, task = case.chance(), TASKS[case.number % 2]
    reference, words = references[task], command(task)
    kind = KINDS[(case.number // 2) % len(KINDS)]
    if kind is not None:
        blows = [random_blow(chance, reference, kind, cold=case.whole)]
    else:
        links = [chance.choice(LINKS) for _ in range(CHAIN)]
        blows = [random_blow(chance, reference, link, longest=1 / 6) for link in links]
    tally.about = f"{case.repeat} ({task}, {'; '.join(map(str, blows))})"
    following = words
    for blow in blows:
        before = checks.saved_step(place.run)
        ended, hit = strike(place, following, reference, blow)
        tally.tried += hit
        checks.intact(tally, place, before)
        _judge(tally, ended, blow, hit, trained=checks.saved_step(place.run) > before)
        following = checks.next_command(tally, place, words)
    checks.finish(tally, place, words, reference)


def _judge(tally: Tally, ended: Ended, blow: Blow, hit: bool, trained: bool) -> None:
    """Check how a process ended after these signals; ``trained``: it saved a new state."""
    number = blow.signals[-1]
    still_starting = blow.cold and "drawbench" not in ended.err  # then Python itself answers
    still_starting |= ended.status == -number and not ended.err  # nothing of ours had begun
    if number == KILL or still_starting:
        return
    checks.no_traceback(tally, ended)
    allowed = {0, 128 + number} if hit else {0}
    if hit and (number == TERM or len(blow.signals) > 1):
        allowed.add(-number)
    tally.check(ended.status in allowed, f"exit status {ended.status}: {ended.err[-600:]}")
    if ended.status == 128 + number:
        stopped = ended.last_line.startswith("Stopped")
        stopped &= not trained or "drawbench resume" in ended.last_line
        tally.check(stopped, f"it does not say how to resume: {ended.err[-600:]}")
