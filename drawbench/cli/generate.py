"""``drawbench generate``."""

from pathlib import Path
from typing import Any

import click

from drawbench.cli import experiment, options, sharing
from drawbench.config import Generate
from drawbench.config.fields import check
from drawbench.config.training import GenerateTraining
from drawbench.errors import Problem


@click.command(
    cls=experiment.TrainingCommand,
    epilog="""\b
Examples:
  drawbench generate                                     30 minutes on binarised MNIST
  drawbench generate --no-attention --glimpses 20        the same without windows
  drawbench generate --dataset mnist2                    two digits on a large canvas
  drawbench generate --dataset folder --images photos/   your own pictures
  drawbench generate --model mymodel:network             your own generator, see docs/extending.md
  drawbench generate --recipe mnist-20 --seeds 0..2      three runs of a row
  drawbench generate --from RUN --seed 3                 more samples of a trained model
  drawbench generate --dataset captions                  drawing what a sentence says
  drawbench generate --from RUN --caption "the digit 3 is at the top of the digit 7 ."
Settings can come from the environment too: DRAWBENCH_GENERATE_GLIMPSES=32.
""",
)
@experiment.recipe(Generate)
@experiment.settings(Generate)
@click.option("--no-attention", is_flag=True, help="The same as --attention none.")
@click.option(
    "--from",
    "origin",
    type=options.run,
    help="Do not train: draw samples with the model of this run.",
)
@click.option("--caption", help="With --from: the sentence to draw from.")
@click.option(
    "--pictures",
    type=click.IntRange(1, 100),
    default=16,
    help="Samples and reconstructions to draw.",
)
@click.option(
    "--out",
    type=options.folder,
    help="With --from: where the pictures go.  [default: the run's figures, for an exported copy "
    "results/own]",
)
@options.ROW
@options.NEW_RUN
def command(
    recipe: str | None,
    given: dict[str, Any],
    seeds: list[int] | None,
    jobs: int,
    no_attention: bool,
    origin: Path | None,
    caption: str | None,
    out: Path | None,
    trust: tuple[str, ...],
    **place: Any,
) -> None:
    """Train a network that draws, measure the bound on its likelihood, and show it drawing.

    Writes a run folder with the configuration, the learning curve, the best weights, the result,
    pictures and animations.
    """
    if origin is not None:
        seed = given.pop("seed", 0)
        try:
            check(GenerateTraining.__dataclass_fields__["seed"], seed)
        except Problem as error:
            raise click.UsageError(f"--{error}") from error
        flags = {"name": "run", "arguments": "set"}
        words = [*given, "recipe", "no_attention", "name", "seeds", "arguments"]
        words += ["force", "jobs", "log", "runs"]
        for word in words:  # what the environment says is for trainings
            if options.on_command_line(word):
                option = flags.get(word, word).replace("_", "-")
                raise click.UsageError(
                    f"--from takes a trained model as it is; leave out --{option}"
                )
        _draw(origin, seed, out, trust, caption, place["pictures"], place["as_json"])
        return
    if caption is not None:
        raise click.UsageError("--caption goes with --from RUN, the run whose model draws")
    if out is not None:
        raise click.UsageError(
            "--out goes with --from RUN; a new run's place is --runs DIR and --run NAME"
        )
    if no_attention:
        if given.get("attention", "none") != "none":
            raise click.UsageError(
                f"--no-attention contradicts --attention {given['attention']}; give one of them"
            )
        given["attention"] = "none"
    if "data" in given and recipe is None and "dataset" not in given:
        from drawbench.data import cards

        known = cards.read(given["data"])["dataset"]
        given["dataset"] = known if known == "captions" else "mnist2"
    recipe = recipe or experiment.usual_recipe(Generate, given)
    sharing.train(Generate, recipe, given, trust=trust, seeds=seeds, jobs=jobs, **place)


def _draw(
    folder: Path,
    seed: int,
    out: Path | None,
    trust: tuple[str, ...],
    caption: str | None,
    pictures: int,
    as_json: bool,
) -> None:
    """Draw samples with a trained model; its data need not be there."""
    from drawbench import tasks
    from drawbench.cli import console, training
    from drawbench.data import sentences
    from drawbench.tasks.common import blame
    from drawbench.tasks.pictures import draw_samples

    run, config, model = tasks.load_run(folder, trust)
    if config.task != "generate":
        raise Problem(f"{folder} is a run of {config.task!r}, not of a generator")
    name = config.model.model
    if out is None and not training.writable(run) and run.figures.parent == run.folder:
        out = Path("results") / "own" / run.folder.name  # an exported copy stays as it is
    place = out or run.figures
    wishes: dict[str, Any] = {}
    suffix = f"-seed{seed}"
    if config.data.dataset == "captions":
        words = _caption(caption, folder)
        wishes = {"condition": words.expand(pictures, -1), "show": sentences.text}
        suffix = f"-{'-'.join(sentences.text(words).split()[:-1])}{suffix}"
    elif caption is not None:
        raise Problem(f"{folder} has learned no captions: leave out --caption")
    elif getattr(model, "conditional", False):
        raise Problem(
            f"{name} draws from a condition, which --from does not load; "
            f"use drawbench plot {folder}"
        )
    with blame(config):
        drawn = draw_samples(model, None, place, pictures, seed, suffix, **wishes)
    if not drawn:
        raise Problem(f"{name} has no method sample, so it cannot draw without an image")
    paths = [str(path) for path in drawn]
    text = "\n".join(["Written:", *(f"  {path}" for path in paths)])
    console.emit({"run": str(folder), "seed": seed, "figures": paths}, text, as_json)


def _caption(said: str | None, folder: Path) -> Any:
    """Return the word numbers of a caption.

    Raises:
        Problem: there is none, or it cannot be drawn from.
    """
    from drawbench.data import sentences

    if said is None:
        example = sentences.text(sentences.ALL.words[sentences.EXAMPLE])
        raise Problem(f"{folder} draws from captions: add --caption '{example}'")
    return sentences.parse(said)
