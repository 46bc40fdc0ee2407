"""``drawbench evaluate``."""

from pathlib import Path

import click

from drawbench.cli import options


class Numbers(click.ParamType):
    """Whole numbers: ``8``, ``0,4,8`` or ``0..32..4`` (from, to, step)."""

    name = "numbers"

    def convert(self, value, param, ctx) -> list[int]:
        if isinstance(value, list):
            return value
        numbers: list[int] = []
        try:
            for part in value.split(","):
                first, *rest = (int(word) for word in part.split(".."))
                last, step = (*rest, 1)[:2] if rest else (first, 1)
                if len(rest) > 2 or last < first or step < 1 or (last - first) // step > 1000:
                    raise ValueError
                numbers += range(first, last + 1, step)
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers such as 0,4,8 or 0..32..4", param, ctx)
        return sorted(set(numbers))


@click.command(
    epilog="""\b
Examples:
  drawbench evaluate results/runs/classify-draw-8-seed0
  drawbench evaluate RUN --clutter 0..32..4            error against clutter it was not trained with
  drawbench evaluate RUN --glimpses 1..12              error against looks at test time
"""
)
@options.RUN_ARGUMENT
@click.option("--clutter", type=Numbers(), help="Also test with these counts of clutter pieces.")
@click.option("--canvas", type=Numbers(), help="Also test on canvases of these sides, pixels.")
@click.option("--glimpses", type=Numbers(), help="Also test with these numbers of glimpses.")
@click.option("--batch", type=click.IntRange(1), default=250, show_default=True, help="Images at a time: a matter of memory.")
@options.DATASETS
@options.SOURCES
@options.common
def command(
    run: Path,
    clutter: list[int] | None,
    canvas: list[int] | None,
    glimpses: list[int] | None,
    batch: int,
    datasets: Path,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Measure a run again from its best weights: the error on the test file, with a 95 % interval, and by class.

    With --clutter, --canvas or --glimpses also outside its training conditions; the table and the curve go into the run folder.
    """
    from drawbench import classify, evaluation
    from drawbench.cli import classifying, console
    from drawbench.data import store
    from drawbench.training import Interrupted, stop_flag

    for name, values in (("--clutter", clutter), ("--canvas", canvas), ("--glimpses", glimpses)):
        if values and min(values) < (0 if name == "--clutter" else 1):
            raise click.UsageError(f"{name} must be at least {0 if name == '--clutter' else 1}, got {min(values)}")
    opened = classifying.open_run(run)
    screen = console.Console()
    model = classify.load_model(opened)
    experiment = classifying.experiment(opened.config, datasets, sources, screen)
    screen.close()
    model.to(experiment.device)
    test = store.load(experiment.folder, "test")
    curves = {}
    with stop_flag() as flag:
        try:
            score = evaluation.score(evaluation.predict(model, test.images, batch=batch, check=flag.check), test.labels)
            for condition, values in (("clutter", clutter), ("canvas", canvas)):
                if values:
                    curves[condition] = classify.against_scenes(model, experiment.source, opened.config.data, condition, values, flag.check)
            if glimpses:
                curves["glimpses"] = classify.against_glimpses(model, test, glimpses, flag.check)
        except Interrupted as stop:
            console.say("Stopped; nothing was written.")
            raise SystemExit(128 + stop.number) from None
    drawn = [path for condition, rows in curves.items() for path in classifying.write_curve(opened, condition, rows)]
    low, high = score.interval
    measured = {"metric": "test_error_percent", "value": score.percent, "low": low, "high": high, "n": score.n, "errors": score.errors}
    by_class = {"per_class_error": score.per_class, "confusion": score.confusion.tolist()}
    text = classifying.measured_text(opened, score, curves, drawn)
    console.emit({"run": str(run), **measured, **by_class, "curves": curves}, text, as_json)
