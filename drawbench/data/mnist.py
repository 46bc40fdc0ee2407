"""MNIST and its relatives as they are: labelled 28x28 digits, black and white for generators."""

from typing import Any

from drawbench.data import binarised, digits, pixels
from drawbench.data.batch import Batch
from drawbench.data.dataset import Context, Dataset
from drawbench.errors import Problem


def load(settings: Any, context: Context) -> Dataset:
    """Load digits. Settings: ``source``; for generators also ``pixels`` and ``data_seed``.

    ``--pixels auto`` is the published binarisation (``static``) where the source may be MNIST and
    its files are there or can be downloaded; otherwise ``fixed``, and a sentence says so.

    Raises:
        Problem: settings that do not go together; files that are missing or damaged.
    """
    rule, source_name = getattr(settings, "pixels", None), settings.source
    if rule == "static" and source_name not in ("auto", "mnist"):
        raise Problem(
            "--pixels static is the published binarisation of MNIST, but the source is "
            f"'{source_name}': use --pixels fixed"
        )
    if rule == "static" or (rule == "auto" and source_name in ("auto", "mnist")):
        try:
            return _static(context)
        except binarised.Missing as problem:
            if rule == "static":
                raise
            context.say(
                f"{problem}; until then grey digits are binarised here (--pixels fixed), and every "
                "result says so"
            )
    rule = "fixed" if rule == "auto" else rule
    source = digits.load(source_name, context.sources_root, context.download, context.say)
    parts = {
        split: Batch(part.images[:, None], part.labels.long())
        for split, part in source.splits.items()
    }
    data_seed = getattr(settings, "data_seed", 0)
    name = source.name
    if rule is not None:
        name = pixels.named(f"{name}-{rule}", data_seed if rule in pixels.DRAWN else 0)
    return Dataset.from_parts(
        name,
        source.name,
        parts,
        seed=context.seed,
        what=source.note,
        pixels=rule,
        data_seed=data_seed,
        classes=digits.CLASSES,
    )


def _static(context: Context) -> Dataset:
    images = binarised.load(context.sources_root, context.download, context.progress)
    counts = " / ".join(f"{len(part):,}" for part in images.values())
    return Dataset.from_parts(
        "mnist-static",
        "mnist",
        {split: Batch(part) for split, part in images.items()},
        seed=context.seed,
        what="MNIST in the published fixed binarisation of Salakhutdinov & Murray 2008 "
        f"({counts} images)",
        pixels="static",
    )
