"""Make the run folders of drawbench/pretrained from results/published: ``make pretrained``.

Weights are rounded to half precision and measured again, unless the published ones are half already
and were measured so.
"""

import shutil
import tempfile
from pathlib import Path

from commands import answer

from drawbench import config, pretrained
from drawbench.config import Training
from drawbench.files import write_atomically
from drawbench.runs import BEST, Run, save_checkpoint

ROOT = Path(__file__).parent.parent
CARD = """---
license: mit
library_name: drawbench
tags: [attention, draw, {task}]
---

# {name}

This network {about}.
It is a model of *DRAW: A Recurrent Neural Network For Image Generation* (Gregor, Danihelka, Graves,
Rezende & Wierstra, ICML 2015, arXiv 1502.04623), trained with drawbench.

```
drawbench plot {name}
drawbench {use}
```

```python
from drawbench import load_pretrained

model = load_pretrained("{name}").model
```

| | |
|---|---|
| {metric} on {n:,} test images | **{value:.2f}** (95% interval {low:.2f}–{high:.2f}), measured with these weights |
| the run it was made from | {full:.2f}, `results/published/{run}` |
| test set | {dataset}, digits from {source} |
| parameters | {parameters:,}, stored in half precision |
| training | {steps:,} updates, {images_seen:,} images, {hours:.1f} hours of one core, seed {seed} |

Trained with:

```
{command}
```

It knows MNIST's digits, white on black, and nothing else: letters, photographs and thin pen strokes
on paper are outside what it was trained and measured on. The data are MNIST (Y. LeCun, C. Cortes),
CC BY-SA 3.0.
"""
USE = {"classify": "evaluate {} --glimpses 1..12", "generate": "generate --from {} --seed 3"}
METRIC = {"classify": "Test error, percent,", "generate": "Bound, nats per image,"}


def pack(name: str, entry: dict[str, str], target: Path) -> None:
    """Write the run folder of one model."""
    source = ROOT / "results" / "published" / entry["run"]
    full = Run.open(source).result()
    rounded = [] if full.get("weights") == "float16" else ["--half"]
    answer("export", source, target, *rounded, "--datasets", ROOT / "datasets")
    shutil.rmtree(target / "figures")
    for curve in target.glob("error_against_*.csv"):
        curve.unlink()
    copy = Run.open(target)
    tensors, facts = copy.load_best()
    # Without MNIST the package's own digits will do to look at, and evaluate says so. The run that
    # the weights started from is not in the package.
    changes = {"source": "auto", "device": "auto", "start": None, "threads": Training().threads}
    changes |= {"pixels": "auto"} if full["dataset"] == "mnist-static" else {}
    copy.save_config(config.replace(copy.config, **changes))
    size = facts.get("size") or [1, copy.config.data.canvas, copy.config.data.canvas]
    save_checkpoint(target / BEST, tensors, {"step": facts["step"], "size": size})
    result = copy.result()
    task = result["task"]
    facts = {**entry, **result, "full": full["value"], "hours": full["train_seconds"] / 3600}
    facts |= {"name": name, "use": USE[task].format(name), "metric": METRIC[task]}
    write_atomically(target / "README.md", CARD.format(**facts).encode())


def main() -> None:
    for name, entry in pretrained.models().items():
        with tempfile.TemporaryDirectory(dir=ROOT) as folder:
            pack(name, entry, Path(folder) / name)
            shutil.rmtree(pretrained.HOME / name, ignore_errors=True)
            shutil.move(Path(folder) / name, pretrained.HOME / name)


if __name__ == "__main__":
    main()
