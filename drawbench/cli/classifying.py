"""Runs of classifiers on the command line: from a configuration to the printed result.
:mod:`drawbench.cli.generating` is its like.
"""

from pathlib import Path

from torch import Tensor

from drawbench import distributed, files
from drawbench.cli import console
from drawbench.config import GLIMPSING, Classify, Evaluate
from drawbench.data import sources as origins
from drawbench.data import store
from drawbench.evaluation import error_rate, paired
from drawbench.evaluation.paired import Outcomes
from drawbench.figures import confusion, save
from drawbench.figures import run as figures
from drawbench.runs import Run, command_line
from drawbench.tasks import classify
from drawbench.tasks import user_model as own
from drawbench.tasks.classify import Experiment
from drawbench.tasks.common import device_of
from drawbench.training import Interrupted, StopFlag, Trainer, stop_flag

CONDITIONS = {
    "clutter": "clutter pieces",
    "canvas": "side of the canvas (pixels)",
    "glimpses": "glimpses",
}


def experiment(
    config: Classify, datasets: Path, sources: Path | None, screen: console.Console
) -> Experiment:
    """The experiment of a configuration, its data found or made."""
    return Experiment(config, origins.sources_root(sources), datasets, screen)


def name_of(config: Classify) -> str:
    """What a run is called if nobody says."""
    looks = [str(config.model.glimpses)] if config.model.model in GLIMPSING else []
    return "-".join(["classify", config.model.model, *looks, f"seed{config.training.seed}"])


def finish(experiment: Experiment, run: Run, screen: console.Console, as_json: bool) -> None:
    """Train to the end, test, write the result and the figures, print."""
    with run.locked(), stop_flag() as flag:
        try:
            trainer = experiment.train(run, flag)
            screen.close()
            tested = experiment.test(run, flag)
        except Interrupted as stop:
            screen.close()
            console.stopped(stop.number, run.folder)
        _conclude(experiment, run, trainer, tested, as_json)


@distributed.by_first
def _conclude(
    experiment: Experiment, run: Run, trainer: Trainer, tested: classify.Tested, as_json: bool
) -> None:
    """Write the result and the figures, print."""
    result = classify.result(run.config, tested, trainer, run.command)
    run.write_result(result)
    test = store.load(experiment.folder, "test")
    drawn = figures.of_classifier(run, tested.model, test.images, test.labels)
    console.emit(
        {**result, "run": str(run.folder)},
        summary(result, run.folder, [str(path) for path in drawn]),
        as_json,
    )


def measure_again(experiment: Experiment, run: Run, flag: StopFlag) -> None:
    """Measure a run as it was measured at the end of its training, from the weights that are there
    now; write the result.
    """
    tested = experiment.test(run, flag)
    run.write_result(run.result() | classify.measured(run.config.data, tested.score, tested.cost))


def redraw(experiment: Experiment, run: Run) -> list[Path]:
    """All figures of a run, again."""
    test = store.load(experiment.folder, "test")
    return figures.of_classifier(run, classify.load_model(run), test.images, test.labels)


def outcomes(run: Run, datasets: Path, sources: Path | None, screen: console.Console) -> Outcomes:
    """What a run's best weights make of each test image, measured and kept in its folder."""
    made = experiment(run.config, datasets, sources, screen)
    screen.close()
    made.test(run, StopFlag())
    return paired.load(run.folder)


def evaluate(
    run: Run,
    wanted: dict[str, list[int]],
    batch: int,
    datasets: Path,
    sources: Path | None,
    screen: console.Console,
    as_json: bool,
) -> None:
    """Measure a run again, also under other conditions than in training: ``wanted`` has values of
    those by name.
    """
    model = classify.load_model(run)
    made = experiment(run.config, datasets, sources, screen)
    screen.close()
    model.to(made.device)
    test = store.load(made.folder, "test")
    curves: dict[str, list[dict]] = {}
    with stop_flag() as flag:
        try:
            probabilities = error_rate.predict(model, test.images, batch=batch, check=flag.check)
            score = error_rate.score(probabilities, test.labels)
            for condition, values in wanted.items():
                if condition == "glimpses":
                    curves[condition] = classify.against_glimpses(model, test, values, flag.check)
                else:
                    curves[condition] = classify.against_scenes(
                        model, made.source, run.config.data, condition, values, flag.check
                    )
        except Interrupted as stop:
            console.say("Stopped; nothing was written.")
            raise SystemExit(128 + stop.number) from None
    _tell(run, score, probabilities, test, curves, as_json)


@distributed.by_first
def _tell(
    run: Run,
    score: error_rate.Score,
    probabilities: Tensor,
    test: store.Scenes,
    curves: dict[str, list[dict]],
    as_json: bool,
) -> None:
    """Keep what became of each image, write the curves, print."""
    classify.outcomes(probabilities, test).save(run.folder)
    drawn = [
        path for condition, rows in curves.items() for path in write_curve(run, condition, rows)
    ]
    low, high = score.interval
    measured = {
        "metric": "test_error_percent",
        "value": score.percent,
        "low": low,
        "high": high,
        "n": score.n,
        "errors": score.errors,
    }
    by_class = {"per_class_error": score.per_class, "confusion": score.confusion.tolist()}
    console.emit(
        {"run": str(run.folder), **measured, **by_class, "curves": curves},
        measured_text(run, score, curves, drawn),
        as_json,
    )


def evaluate_own(
    config: Evaluate,
    guest: own.Guest,
    folder: Path,
    force: bool,
    batch: int,
    datasets: Path,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Measure a network that somebody brought along, and write a folder with its configuration, its
    result and its confusions.
    """
    screen = console.Console()
    config, test = own.prepare(config, origins.sources_root(sources), datasets, screen)
    screen.close()
    command = command_line()
    with stop_flag() as flag:
        try:
            result = own.measure(
                config, guest.to(device_of("auto")), test, command, batch=batch, check=flag.check
            )
        except Interrupted as stop:
            console.say("Stopped; nothing was written.")
            raise SystemExit(128 + stop.number) from None
    run = Run.create(folder, config, command=command, force=force)
    run.write_result(result)
    drawn = save(confusion(result["confusion"]), run.figures, "confusion")
    row = {
        "model": result["model"],
        "digits from": result["source"],
        "test error %": f"{result['value']:.2f}",
        "95 % interval": f"{result['low']:.2f} - {result['high']:.2f}",
        "images": result["n"],
    }
    lines = [
        console.table([row]),
        "",
        cost_text(result),
        "",
        f"Folder: {folder}",
        *(f"  {path}" for path in drawn),
    ]
    console.emit({**result, "run": str(folder)}, "\n".join(lines), as_json)


def summary(result: dict, folder: Path, drawn: list[str]) -> str:
    """What a person reads at the end."""
    sampled = (
        {"with places drawn %": f"{result['sampled_error']:.2f}"}
        if "sampled_error" in result
        else {}
    )
    row = {
        "model": result["model"],
        "glimpses": result["glimpses"] or "whole image",
        "digits from": result["source"],
        "test error %": f"{result['value']:.2f}",
        "95 % interval": f"{result['low']:.2f} - {result['high']:.2f}",
        **sampled,
        "images": result["n"],
        "majority class %": f"{result['majority_error']:.1f}",
        "chance %": f"{result['chance_error']:.1f}",
        "minutes": f"{result['train_seconds'] / 60:.1f}",
    }
    lines = [console.table([row]), "", cost_text(result), ""]
    if result["source"] == "digits":
        lines += [
            "These are scikit-learn's embedded digits, enlarged: not MNIST, and not comparable with published numbers.",
            "",
        ]
    lines += [f"Run folder: {folder}", *(f"  {path}" for path in drawn)]
    return "\n".join(lines)


def cost_text(result: dict) -> str:
    """What an answer costs, in a line."""
    return (
        f"{result['parameters']:,} parameters; for each image {result['pixels_read']:,} pixels read and "
        f"{result['multiply_adds']:,} multiply-adds."
    )


def write_curve(run: Run, condition: str, rows: list[dict]) -> list[Path]:
    """Write the errors against a condition as a table and a curve into the run folder; the paths of
    both.
    """
    import pandas

    from drawbench.figures import error_curve, save

    frame = pandas.DataFrame(rows)
    table = run.folder / f"error_against_{condition}.csv"
    files.write_atomically(table, frame.to_csv(index=False, lineterminator="\n").encode())
    trained = getattr(run.config.model if condition == "glimpses" else run.config.data, condition)
    drawing = error_curve(
        frame.rename(columns={condition: "condition"}), CONDITIONS[condition], trained_at=trained
    )
    return [table, *save(drawing, run.figures, f"error_against_{condition}")]


def measured_text(run: Run, score, curves: dict[str, list[dict]], drawn: list[Path]) -> str:
    """What ``evaluate`` prints."""
    low, high = score.interval
    lines = [
        f"{run.folder}: test error {score.percent:.2f} % (95 % interval {low:.2f} - {high:.2f}), {score.errors} of {score.n} images wrong.",
        "",
        console.table(
            [
                {"digit": digit, "error %": f"{error:.2f}"}
                for digit, error in enumerate(score.per_class)
                if error is not None
            ]
        ),
    ]
    for rows in curves.values():
        rounded = [{name: round(value, 2) for name, value in row.items()} for row in rows]
        lines += ["", console.table(rounded)]
    if drawn:
        lines += ["", "Written:", *(f"  {path}" for path in drawn)]
    return "\n".join(lines)
