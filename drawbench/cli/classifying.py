"""What ``classify``, ``resume`` and ``quickstart`` share: from a configuration to the printed result."""

import itertools
from pathlib import Path

from drawbench import classify, files
from drawbench.classify import Experiment
from drawbench.cli import console
from drawbench.config import Classify
from drawbench.data import sources as origins
from drawbench.data import store
from drawbench.errors import Problem
from drawbench.figures import run as figures
from drawbench.runs import Run
from drawbench.training import Interrupted, stop_flag

CONDITIONS = {"clutter": "clutter pieces", "canvas": "side of the canvas (pixels)", "glimpses": "glimpses"}


def experiment(config: Classify, datasets: Path, sources: Path | None, screen: console.Console) -> Experiment:
    return Experiment(config, origins.sources_root(sources), datasets, screen)


def run_folder(root: Path, name: str | None, config: Classify) -> Path:
    """The folder of a run: ``root/name``, or a name made from the settings, with a number where it is taken."""
    if name is not None:
        if not name or Path(name).name != name or name.startswith("."):
            raise Problem(f"a run's name is one plain word, got {name!r}; its place is --runs DIR")
        return root / name
    stem = f"classify-{config.model.model}-{config.model.glimpses}-seed{config.training.seed}"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(root / name for name in names if not (root / name).exists())


def open_run(folder: Path) -> Run:
    """The classifier's run in a folder.

    Raises:
        Problem: there is none, or its configuration is of something else or not complete.
    """
    run = Run.open(folder)
    if run.config.task != "classify":
        raise Problem(f"{folder} is a run of {run.config.task!r}, not of a classifier")
    if run.config.training.steps is None:
        raise Problem(f"{folder / 'config.json'} is not complete: it names no number of steps, which drawbench classify writes there")
    return run


def finish(experiment: Experiment, run: Run, screen: console.Console, as_json: bool) -> None:
    """Train to the end, test, write the result and the figures, print."""
    with run.locked(), stop_flag() as flag:
        try:
            trainer = experiment.train(run, flag)
            screen.close()
            score, model = experiment.test(run, flag)
        except Interrupted as stop:
            screen.close()
            console.stopped(stop.number, run.folder)
        result = classify.result(run.config, score, trainer, files.read_json(run.folder / "environment.json").get("command", ""))
        run.write_result(result)
        test = store.load(experiment.folder, "test")
        drawn = figures.of_classifier(run, model, test.images, test.labels)
    console.emit({**result, "run": str(run.folder)}, summary(result, run.folder, [str(path) for path in drawn]), as_json)


def summary(result: dict, folder: Path, drawn: list[str]) -> str:
    """What a person reads at the end."""
    row = {
        "model": result["model"],
        "glimpses": result["glimpses"],
        "digits from": result["source"],
        "test error %": f"{result['value']:.2f}",
        "95 % interval": f"{result['low']:.2f} - {result['high']:.2f}",
        "images": result["n"],
        "majority class %": f"{result['majority_error']:.1f}",
        "chance %": f"{result['chance_error']:.1f}",
        "minutes": f"{result['train_seconds'] / 60:.1f}",
    }
    lines = [console.table([row]), ""]
    if result["source"] == "digits":
        lines += ["These are scikit-learn's embedded digits, enlarged: not MNIST, and not comparable with published numbers.", ""]
    lines += [f"Run folder: {folder}", *(f"  {path}" for path in drawn)]
    return "\n".join(lines)


def write_curve(run: Run, condition: str, rows: list[dict]) -> list[Path]:
    """Write the errors against a condition as a table and a curve into the run folder; the paths of both."""
    import pandas

    from drawbench.figures import error_curve, save

    frame = pandas.DataFrame(rows)
    table = run.folder / f"error_against_{condition}.csv"
    files.write_atomically(table, frame.to_csv(index=False, lineterminator="\n").encode())
    trained = getattr(run.config.model if condition == "glimpses" else run.config.data, condition)
    drawing = error_curve(frame.rename(columns={condition: "condition"}), CONDITIONS[condition], trained_at=trained)
    return [table, *save(drawing, run.figures, f"error_against_{condition}")]


def measured_text(run: Run, score, curves: dict[str, list[dict]], drawn: list[Path]) -> str:
    """What ``evaluate`` prints."""
    low, high = score.interval
    lines = [
        f"{run.folder}: test error {score.percent:.2f} % (95 % interval {low:.2f} - {high:.2f}), {score.errors} of {score.n} images wrong.",
        "",
        console.table([{"digit": digit, "error %": f"{error:.2f}"} for digit, error in enumerate(score.per_class) if error is not None]),
    ]
    for rows in curves.values():
        rounded = [{name: round(value, 2) for name, value in row.items()} for row in rows]
        lines += ["", console.table(rounded)]
    if drawn:
        lines += ["", "Written:", *(f"  {path}" for path in drawn)]
    return "\n".join(lines)
