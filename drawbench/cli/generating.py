"""Runs of generators on the command line: from a configuration to the printed result.
:mod:`drawbench.cli.classifying` is its like.
"""

from pathlib import Path
from typing import Any

from drawbench import distributed
from drawbench.cli import console
from drawbench.config import Generate
from drawbench.data import sources as origins
from drawbench.errors import Problem
from drawbench.evaluation.bounds import Bound, ImportanceWeighted
from drawbench.evaluation.paired import Outcomes
from drawbench.figures import run as figures
from drawbench.models import Generator
from drawbench.runs import Run
from drawbench.tasks import generate
from drawbench.tasks.generate import Experiment
from drawbench.training import Interrupted, StopFlag, Trainer, stop_flag

PICTURES = 16  # samples and reconstructions that are drawn


def experiment(
    config: Generate, datasets: Path, sources: Path | None, screen: console.Console
) -> Experiment:
    """The experiment of a configuration, its data found or made."""
    return Experiment(config, origins.sources_root(sources), datasets, screen)


def name_of(config: Generate) -> str:
    """What a run is called if nobody says."""
    model = config.model
    attention = {"both": "", "none": "-no-attention"}.get(
        model.attention, f"-{model.attention}-attention"
    )
    what = model.model if model.model != "draw" else f"draw-{model.glimpses}{attention}"
    return f"generate-{config.data.dataset}-{what}-seed{config.training.seed}"


def finish(
    experiment: Experiment,
    run: Run,
    screen: console.Console,
    as_json: bool,
    pictures: int = PICTURES,
) -> None:
    """Train to the end, measure on the test images, write the result and the pictures, print."""
    training = experiment.config.training
    with run.locked(), stop_flag() as flag:
        try:
            trainer = experiment.train(run, flag)
            screen.close()
            screen.say("Measuring the bound on the test images.")
            model = generate.load_model(run).to(experiment.device)
            measured, weighted = experiment.measure(
                model,
                flag,
                samples=training.bound_samples,
                iw_samples=training.iw_samples,
                iw_images=training.iw_images,
            )
            screen.close()
        except Interrupted as stop:
            screen.close()
            console.stopped(stop.number, run.folder)
        _conclude(experiment, run, trainer, measured, weighted, model, pictures, as_json)


@distributed.by_first
def _conclude(
    experiment: Experiment,
    run: Run,
    trainer: Trainer,
    measured: Bound,
    weighted: ImportanceWeighted | None,
    model: Generator,
    pictures: int,
    as_json: bool,
) -> None:
    """Write the result and the pictures, print."""
    result = generate.result(
        experiment.config, experiment.data, measured, weighted, trainer, run.command
    )
    run.write_result(result)
    generate.outcomes(measured, experiment.data).save(run.folder)
    drawn = figures.of_generator(run, model, experiment.data, pictures)
    console.emit({**result, "run": str(run.folder)}, summary(result, run.folder, drawn), as_json)


def measure_again(experiment: Experiment, run: Run, flag: StopFlag) -> None:
    """Measure a run as it was measured at the end of its training, from the weights that are there
    now; write the result.
    """
    training, model = run.config.training, generate.load_model(run).to(experiment.device)
    measured, weighted = experiment.measure(
        model,
        flag,
        samples=training.bound_samples,
        iw_samples=training.iw_samples,
        iw_images=training.iw_images,
    )
    run.write_result(run.result() | generate.measured_fields(measured, weighted, experiment.data))
    generate.outcomes(measured, experiment.data).save(run.folder)


def redraw(experiment: Experiment, run: Run) -> list[Path]:
    """All figures of a run, again."""
    model = generate.load_model(run)
    generate.check_fits(model, experiment.data)
    return figures.of_generator(run, model, experiment.data, PICTURES)


def draw_from(
    folder: Path,
    seed: int,
    pictures: int,
    out: Path | None,
    datasets: Path,
    sources: Path | None,
    screen: console.Console,
    as_json: bool,
) -> None:
    """Measure and draw with a trained model: samples, reconstructions and films of another seed."""
    run = Run.open(folder)
    model = generate.load_model(run)
    made = experiment(run.config, datasets, sources, screen)
    screen.close()
    with stop_flag() as flag:
        try:
            measured, _ = made.measure(
                model.to(made.device), flag, samples=1, iw_samples=None, iw_images=None
            )
            screen.close()
        except Interrupted as stop:
            screen.close()
            console.say("Stopped; nothing was written.")
            raise SystemExit(128 + stop.number) from None
    _draw(run, model, made, measured, out or run.figures, pictures, seed, as_json)


@distributed.by_first
def _draw(
    run: Run,
    model: Generator,
    made: Experiment,
    measured: Bound,
    out: Path,
    pictures: int,
    seed: int,
    as_json: bool,
) -> None:
    """Draw and print."""
    fields = generate.measured_fields(measured, None, made.data)
    drawn = figures.of_drawings(model, made.data, out, pictures, seed)
    result = {
        "run": str(run.folder),
        "dataset": made.data.name,
        "seed": seed,
        **fields,
        "figures": [str(path) for path in drawn],
    }
    console.emit(
        result,
        "\n".join([sentence(run.folder, fields), "", "Written:", *(f"  {path}" for path in drawn)]),
        as_json,
    )


def outcomes(run: Run, datasets: Path, sources: Path | None, screen: console.Console) -> Outcomes:
    """The bound of each test image under a run's best weights, measured and kept in its folder."""
    made = experiment(run.config, datasets, sources, screen)
    model, samples = generate.load_model(run).to(made.device), run.config.training.bound_samples
    measured, _ = made.measure(model, StopFlag(), samples=samples, iw_samples=None, iw_images=None)
    screen.close()
    found = generate.outcomes(measured, made.data)
    found.save(run.folder)
    return found


def evaluate(
    run: Run,
    samples: int | None,
    bound_samples: int | None,
    images: int | None,
    batch: int,
    datasets: Path,
    sources: Path | None,
    screen: console.Console,
    as_json: bool,
) -> None:
    """Measure a run again; see ``drawbench evaluate``."""
    training = run.config.training
    model = generate.load_model(run)
    made = experiment(run.config, datasets, sources, screen)
    screen.close()
    with stop_flag() as flag:
        try:
            many = bound_samples or training.bound_samples
            measured, weighted = made.measure(
                model.to(made.device),
                flag,
                samples=many,
                iw_samples=samples,
                iw_images=images,
                batch=batch,
            )
            screen.close()
        except Interrupted as stop:
            screen.close()
            console.say("Stopped; nothing was written.")
            raise SystemExit(128 + stop.number) from None
        except (MemoryError, RuntimeError) as error:
            if "memory" not in str(error) and not isinstance(error, MemoryError):
                raise
            raise Problem(
                f"there is not enough memory for {batch} images at a time; try --batch {max(1, batch // 10)}"
            ) from error
    _tell(run, made, measured, weighted, screen, as_json)


@distributed.by_first
def _tell(
    run: Run,
    made: Experiment,
    measured: Bound,
    weighted: ImportanceWeighted | None,
    screen: console.Console,
    as_json: bool,
) -> None:
    """Print what was measured, and whether it was measured on other images than the run's result."""
    fields = generate.measured_fields(measured, weighted, made.data)
    if (run.folder / "result.json").is_file() and run.result().get(
        "test_sha256", fields["test_sha256"]
    ) != fields["test_sha256"]:
        screen.say(
            f"The test images of {made.data.name} are not those that {run.folder / 'result.json'} was measured on."
        )
    if measured.samples == run.config.training.bound_samples:
        generate.outcomes(measured, made.data).save(run.folder)
    lines = [sentence(run.folder, fields), "", console.table([_rounded(fields)])]
    console.emit(
        {"run": str(run.folder), "dataset": made.data.name, **fields}, "\n".join(lines), as_json
    )


def sentence(folder: Path, fields: dict[str, Any]) -> str:
    """The bound with its interval, in words."""
    many = f"{fields['n']} images, {fields['bound_samples']} sample{'s' if fields['bound_samples'] > 1 else ''} each"
    interval = f"{fields['low']:.2f} - {fields['high']:.2f}"
    return f"{folder}: bound {fields['value']:.2f} nats (95 % interval {interval}; {many})."


def _rounded(fields: dict[str, Any]) -> dict[str, Any]:
    """The row of a table for people."""
    row = {
        "bound (nats)": f"{fields['value']:.2f}",
        "95 % interval": f"{fields['low']:.2f} - {fields['high']:.2f}",
        "reconstruction": f"{fields['reconstruction']:.2f}",
        "KL": f"{fields['kl']:.2f}",
        "images": fields["n"],
        "bits/dim": f"{fields['bits_per_dimension']:.4f}",
    }
    if "entropy_floor" in fields:
        row["entropy floor"] = f"{fields['entropy_floor']:.2f}"
    if "iw_bound" in fields:
        row[f"importance-weighted, K = {fields['iw_samples']} ({fields['iw_images']} images)"] = (
            f"{fields['iw_bound']:.2f}"
        )
    return row


def summary(result: dict[str, Any], folder: Path, drawn: list[Path]) -> str:
    """What a person reads at the end."""
    about = {
        "model": result["model"],
        "attention": result["attention"],
        "steps": result["glimpses"],
        "data": result["dataset"],
    }
    lines = [
        console.table(
            [about | _rounded(result) | {"minutes": f"{result['train_seconds'] / 60:.1f}"}]
        ),
        "",
        f"Pixels: {result['pixels']}.",
    ]
    if result["source"] == "digits":
        lines.append(
            "These are scikit-learn's embedded digits, enlarged: not MNIST, and not comparable with published numbers."
        )
    if "entropy_floor" in result:
        lines.append(
            "The pixels are not binary: this is a cross-entropy above its floor, not a likelihood."
        )
    return "\n".join([*lines, "", f"Run folder: {folder}", *(f"  {path}" for path in drawn)])
