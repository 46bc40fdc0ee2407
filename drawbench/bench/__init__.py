"""Speed and memory of the toolkit, measured so that they can be believed.

- Contenders take turns, A B A B ..., so that a machine that drifts drifts for all; what is compared
  is compared round by round.
- A step is held against its floor: the matrix products that it cannot do without, and nothing else,
  on the same machine, with the same threads, in the same rounds. :class:`Product` lists them; their
  count agrees with the plain model's (``tests/test_bench.py``).
- Peak memory is measured in a process of its own for each contender, for the peak of a process
  never falls.

A *training step* is the loss of a batch, its gradient, clipping and Adam; making the batch is a
part of its own, *data*. An *evaluation* is the loss without gradients. The weights are the initial
ones and a picture is noise, one pixel in ten lit: speed does not depend on either. To add a case,
add it to :data:`CASES`.

Symbols: B images in a batch, S side of the square image, N side of a patch, T steps (glimpses), U
    units of an LSTM, Z latents in a step.
"""

from drawbench.bench.cases import (
    CASES,
    FAST,
    FLOOR,
    GROWING,
    PLAIN,
    RENDER,
    Case,
    Classifier,
    Contender,
    Data,
    Generator,
    contenders,
    select,
)
from drawbench.bench.measuring import AXES, Plan, growth_plans, in_turn, measure, plans
from drawbench.bench.memory import in_process, peak_memory
from drawbench.bench.products import CPU, Product, floor, operations
from drawbench.bench.team import Team

__all__ = [
    "AXES",
    "CASES",
    "CPU",
    "FAST",
    "FLOOR",
    "GROWING",
    "PLAIN",
    "RENDER",
    "Case",
    "Classifier",
    "Contender",
    "Data",
    "Generator",
    "Plan",
    "Product",
    "Team",
    "contenders",
    "floor",
    "growth_plans",
    "in_process",
    "in_turn",
    "measure",
    "operations",
    "peak_memory",
    "plans",
    "select",
]
