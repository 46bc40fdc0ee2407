"""Options and types of options that commands share."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from drawbench import pretrained, studies
from drawbench.errors import Problem

folder = click.Path(path_type=Path, file_okay=False)
path = click.Path(path_type=Path)
USUAL_PLACES = (Path("results/published"), Path("results/runs"))


class RunFolder(click.Path):
    """A run folder; the plain name of one in the usual places, or of a model that comes with the
    package, will do, and can be completed.
    """

    name = "run"

    def __init__(self, exists: bool = False, path_type: type = Path):
        super().__init__(path_type=path_type, file_okay=not exists, exists=exists)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if Path(value).name == str(value) and not Path(value).exists():
            named = [place / value for place in USUAL_PLACES if (place / value).is_dir()]
            if named:
                value = str(named[-1])
            elif self.exists:  # others find it themselves, and keep its name
                value = str(pretrained.find(Path(value)))
        return super().convert(value, param, ctx)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        names = [
            path.parent.name
            for place in USUAL_PLACES
            for path in sorted(place.glob("[!.]*/config.json"))
            if path.parent.name.startswith(incomplete)
        ]
        if names:
            return [CompletionItem(name) for name in dict.fromkeys(names)]
        return super().shell_complete(ctx, param, incomplete)


run = RunFolder()


class DefaultGroup(click.Group):
    """A group whose first command may be left out: ``plot RUN...`` is ``plot runs RUN...``."""

    def __init__(self, *args: Any, default: str, alone: bool = False, **kwargs: Any):
        """Args: default: that command; alone: whether no word at all is that command too."""
        super().__init__(*args, **kwargs)
        self.default, self.alone = default, alone

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        alone = self.alone and not ctx.resilient_parsing  # else a shell completes the default alone
        if (args or alone) and (not args or args[0] not in (*self.commands, "-h", "--help")):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        arguments = (p for p in self.commands[self.default].params if isinstance(p, click.Argument))
        inner = [item for p in arguments for item in p.shell_complete(ctx, incomplete)]
        return super().shell_complete(ctx, incomplete) + inner


def together(*options: Callable) -> Callable:
    """Combine decorators of options into one; help lists them in this order."""
    return lambda command: functools.reduce(lambda made, add: add(made), options[::-1], command)


def on_command_line(name: str) -> bool:
    """Return whether a parameter of this command was given on its command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def _remember_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.meta["drawbench.debug"] = value


def common(command: Callable) -> Callable:
    """Add ``--json``, as ``as_json``, and ``--debug``."""

    @functools.wraps(command)
    def alone(*args: Any, as_json: bool, **values: Any):
        from drawbench.cli import console

        with console.reserved_for_result(as_json):
            return command(*args, as_json=as_json, **values)

    return together(
        click.option(
            "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
        ),
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_remember_debug,
            help="Show the traceback of a problem.",
        ),
    )(alone)


class NameOrFactory(click.Choice):
    """A name, or ``module:factory`` of the user's own."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "[" + "|".join([*(str(choice) for choice in self.choices), "MODULE:FACTORY"]) + "]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if ":" in str(value) else super().convert(value, param, ctx)


class Numbers(click.ParamType):
    """Whole numbers: ``8``, ``0,4,8`` or ``0..32..4`` (from, to, step)."""

    name = "numbers"

    def convert(self, value, param, ctx) -> list[int]:
        try:
            return studies.numbers(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def log(command: Callable) -> Callable:
    """Add ``--log``; the function gets the names of the trackers, as ``log``."""

    @functools.wraps(command)
    def collect(log: tuple[str, ...], tensorboard: bool, **values: Any):
        return command(log=(*log, *(["tensorboard"] if tensorboard else [])), **values)

    return together(
        click.option(
            "--log",
            multiple=True,
            type=NameOrFactory(["tensorboard"]),
            help="Also show metrics, windows and pictures elsewhere; your own tracker: see "
            "docs/trackers.md. Repeat for several.",
        ),
        click.option("--tensorboard", is_flag=True, hidden=True),  # of earlier versions
    )(collect)


FORCE = click.option("--force", is_flag=True, help="Replace what is there.")
RUNS = click.option(
    "--runs", type=folder, default=Path("results/runs"), help="Folder of run folders."
)
RUN_ARGUMENT = click.argument("run", type=run)
SOURCES = click.option(
    "--sources",
    type=folder,
    envvar="DRAWBENCH_SOURCES",
    help="Where original files lie or are downloaded to.  "
    "[default: datasets/sources; env: DRAWBENCH_SOURCES]",
)
DATASETS = click.option(
    "--datasets", type=folder, default=Path("datasets"), help="Folder of generated data sets."
)
IMAGES = click.option(
    "--images",
    "--data",
    "images",
    type=folder,
    help="For a run on a folder, of images or made by make-data: where that folder is now.",
)
QUIET = click.option("--quiet", is_flag=True, help="No progress and no messages, only the result.")
TRUST = click.option(
    "--trust",
    multiple=True,
    metavar="MODULE",
    help="Let a run import this module of yours, which has its model or data set.",
)
# What a command needs to load a run's data and model; it gets them as ``**place``.
PLACE = together(IMAGES, TRUST, DATASETS, SOURCES)
NEW_RUN = together(
    click.option(
        "--run", "name", help="Name of the run folder.  [default: made from the settings]"
    ),
    FORCE,
    log,
    QUIET,
    TRUST,
    RUNS,
    DATASETS,
    SOURCES,
    common,
)
ROW = together(
    click.option(
        "--seeds",
        type=Numbers(),
        allow_from_autoenv=False,  # or the runs would take it from the environment too
        help="Train a run for each of these seeds, such as 0..4, and continue what is half-done; "
        "they are called NAME, NAME-seed1, ...",
    ),
    click.option(
        "--jobs", type=click.IntRange(1), default=1, help="With --seeds: runs at the same time."
    ),
)
PLACES = click.argument(
    "places",
    nargs=-1,
    metavar="[RUN|FOLDER]...",
    type=RunFolder(exists=True),
)


def records_in(places: tuple[Path, ...]) -> list:
    """Return the finished runs in some places, or in the usual ones; name those left out.

    Raises:
        Problem: there is none.
    """
    from drawbench import records
    from drawbench.cli import console

    searched = places or [place for place in USUAL_PLACES if place.is_dir()]
    runs = records.find(searched, console.say)
    if not runs:
        where = ", ".join(str(place) for place in searched or USUAL_PLACES)
        raise Problem(
            f"there is no finished run in {where}; "
            "train one with: drawbench classify or drawbench generate"
        )
    return runs
