"""Make the run folders of drawbench/pretrained from results/published: ``make pretrained``.

Weights are rounded to half precision and measured again, unless the published ones are half already
and were measured so. The weights of a packaged model are committed once, in the package: where the
published folder has none, they are those.
"""

import shutil
import tempfile
from pathlib import Path

from commands import answer

from drawbench import config, pretrained, records
from drawbench.config import Training
from drawbench.files import write_atomically
from drawbench.report.card import model_card
from drawbench.runs import BEST, Run, save_checkpoint

ROOT = Path(__file__).parent.parent
ORIGIN = """
## Origin

The published run `results/published/{run}`, whose result is {value:.2f}, in half precision.
"""


def pack(name: str, entry: dict[str, str], target: Path) -> None:
    """Write the run folder of one model."""
    source = target.parent / entry["run"]
    shutil.copytree(ROOT / "results" / "published" / entry["run"], source)
    if not (source / BEST).exists():
        shutil.copy(pretrained.HOME / name / BEST, source)
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
    card = model_card(records.read(target, print), license="mit")
    card += ORIGIN.format(run=entry["run"], value=full["value"])
    write_atomically(target / "README.md", card.encode())


def main() -> None:
    for name, entry in pretrained.models().items():
        with tempfile.TemporaryDirectory(dir=ROOT) as folder:
            pack(name, entry, Path(folder) / name)
            shutil.rmtree(pretrained.HOME / name, ignore_errors=True)
            shutil.move(Path(folder) / name, pretrained.HOME / name)


if __name__ == "__main__":
    main()
