"""Measurements of the toolkit's speed and memory.

- Contenders take turns, A B A B ..., so that a drifting machine drifts for all of them, and ratios
  are taken round by round.
- Every step is compared with its *floor*: the matrix products it cannot do without, alone, on the
  same machine, with the same threads, in the same rounds. ``tests/test_bench.py`` checks their
  count against the plain model.
- The fast path has to beat what a few lines of PyTorch already give: the plain model in float32 and
  under bfloat16 autocast, through ``torch.compile``, and in a process of one thread for each core.
- Peak memory is measured in a fresh process for each contender, because the peak of a process never
  falls.

A *training step* is loss, gradient, clipping and Adam; an *evaluation* is the loss without
gradients; making the batch is a case of its own, *data*. Weights are the initial ones and the
images are noise with one pixel in ten lit, since speed depends on neither. To add a case, add it
to :data:`CASES`.

Symbols: B images in a batch, S side of the square image, N side of a patch, T steps (glimpses), U
LSTM units, Z latents in a step.
"""

from drawbench.bench import growth as growth
from drawbench.bench.cases import (
    AUTOCAST,
    CASES,
    COMPILED,
    FAST,
    FLOOR,
    GRAPHS,
    PLAIN,
    PROCESSES,
    RENDER,
    Captions,
    Case,
    Classifier,
    Contender,
    Data,
    Eye,
    Generator,
    contenders,
    select,
)
from drawbench.bench.floor import CPU, Product, floor, operations
from drawbench.bench.memory import in_process, peak_memory
from drawbench.bench.timing import Plan, in_turn, measure, plans

__all__ = [
    "AUTOCAST",
    "CASES",
    "COMPILED",
    "CPU",
    "FAST",
    "FLOOR",
    "GRAPHS",
    "PLAIN",
    "PROCESSES",
    "RENDER",
    "Captions",
    "Case",
    "Classifier",
    "Contender",
    "Data",
    "Eye",
    "Generator",
    "Plan",
    "Product",
    "contenders",
    "floor",
    "growth",
    "in_process",
    "in_turn",
    "measure",
    "operations",
    "peak_memory",
    "plans",
    "select",
]
