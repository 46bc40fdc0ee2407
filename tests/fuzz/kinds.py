"""All kinds of input."""

from . import amat, checkpoints, commands, idx, images, npz, records, settings, weights
from .engine import Kind

MODULES = (idx, amat, npz, settings, records, checkpoints, images, weights, commands)
KINDS: list[Kind] = [*(module.KIND for module in MODULES), records.PAGE]
