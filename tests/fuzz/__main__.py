"""The campaign: ``python -m tests.fuzz --cases 20000 [--only idx,npz] [--seed 0]``. Status 1 if a
promise was broken.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # made_runs lies there


def main() -> int:
    from . import guided

    # Before the words are parsed, for their help names what is imported here.
    with (
        guided.instrumented()
        if "--guided" in sys.argv and "--inside" in sys.argv
        else contextlib.nullcontext()
    ):
        from .engine import Tally, campaign, report, shares
        from .kinds import KINDS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument(
        "--only",
        default="",
        help="kinds, with commas between: " + ", ".join(kind.name for kind in KINDS),
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--guided",
        action="store_true",
        help="let coverage lead, with atheris (pip install atheris)",
    )
    parser.add_argument(
        "--inside", action="store_true", help=argparse.SUPPRESS
    )  # the process of one kind
    given = parser.parse_args()
    words = [word for word in given.only.split(",") if word]
    chosen = [kind for kind in KINDS if not words or kind.name in words]
    if not chosen or len(chosen) < len(words):
        parser.error(f"--only takes {', '.join(kind.name for kind in KINDS)}")
    if given.inside:
        with tempfile.TemporaryDirectory() as root:
            lead = partial(guided.lead, number=given.seed) if given.guided else None
            print(
                json.dumps(
                    asdict(
                        campaign(
                            chosen[0], given.cases, Path(root), given.seed, watch=True, lead=lead
                        )
                    )
                ),
                flush=True,
            )
        os._exit(0)  # without the words of libFuzzer
    if given.guided and importlib.util.find_spec("atheris") is None:
        parser.error("--guided needs atheris: pip install atheris")
    tallies = []
    for kind, cases in zip(chosen, shares(chosen, given.cases), strict=True):
        command = [
            sys.executable,
            "-m",
            "tests.fuzz",
            "--inside",
            "--only",
            kind.name,
            "--cases",
            str(cases),
            "--seed",
            str(given.seed),
        ]
        command += ["--guided"] * given.guided
        done = subprocess.run(command, cwd=HERE.parent.parent, capture_output=True, text=True)
        try:
            tally = Tally(**json.loads(done.stdout.splitlines()[-1]))
        except (IndexError, ValueError, TypeError):  # it ended itself, or was ended
            tally = Tally(
                kind.name,
                cases=cases,
                hangs=1,
                failures=[f"[{kind.name}] the process ended:\n{done.stderr[-5000:]}"],
            )
        tallies.append(tally)
        print(report([tally]).splitlines()[1], file=sys.stderr, flush=True)
    print(report(tallies))
    for tally in tallies:
        for failure in tally.failures:
            print(f"\n{failure}")
    return 1 if any(tally.failures for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
