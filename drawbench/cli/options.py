"""Options shared by commands, and options made from the settings of :mod:`drawbench.config`."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from drawbench import config as configs
from drawbench.errors import Problem

folder = click.Path(path_type=Path, file_okay=False)
FORCE = click.option("--force", is_flag=True, help="Replace what is there.")
RUNS = click.option(
    "--runs",
    type=folder,
    default=Path("results/runs"),
    show_default=True,
    help="Folder of run folders.",
)
RUN_ARGUMENT = click.argument("run", type=click.Path(path_type=Path))
SOURCES = click.option(
    "--sources",
    type=folder,
    envvar="DRAWBENCH_SOURCES",
    help="Where original files lie or are downloaded to.  [default: datasets/sources; env: DRAWBENCH_SOURCES]",
)
DATASETS = click.option(
    "--datasets",
    type=folder,
    default=Path("datasets"),
    show_default=True,
    help="Folder of generated data sets.",
)

PLACES = click.argument(
    "places",
    nargs=-1,
    metavar="[RUN|FOLDER]...",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
USUAL_PLACES = (Path("results/published"), Path("results/runs"))


def records_in(places: tuple[Path, ...]) -> list:
    """The finished runs in some places, or in the usual ones; those that cannot be used are named
    on standard error.

    Raises:
        Problem: there is none.
    """
    from drawbench import records
    from drawbench.cli import console

    searched = places or [place for place in USUAL_PLACES if place.is_dir()]
    found = records.find(searched, console.say)
    if not found:
        where = ", ".join(str(place) for place in searched or USUAL_PLACES)
        raise Problem(
            f"there is no finished run in {where}; train one: drawbench classify or drawbench generate"
        )
    return found


def _remember_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.meta["drawbench.debug"] = value


def common(command: Callable) -> Callable:
    """``--json`` and ``--debug``."""
    debug = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_remember_debug,
        help="Show the traceback of a problem.",
    )
    command = debug(command)
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print the result as one JSON object on standard output.",
    )(command)


def _option(field: dataclasses.Field) -> Callable:
    """The click option of one setting; its value is None where it was not given."""
    kind = configs.value_type(field)
    name = "--" + field.name.replace("_", "-")
    help = field.metadata["help"]
    if field.default is not None:
        shown = ("yes" if field.default else "no") if kind is bool else field.default
        help += f"  [default: {shown}]"
    if kind is bool:
        return click.option(
            f"{name}/--no-{field.name.replace('_', '-')}", field.name, default=None, help=help
        )
    choices = field.metadata["choices"]
    return click.option(
        name, field.name, type=click.Choice(choices) if choices else kind, default=None, help=help
    )


def settings(kind: type, skip: tuple[str, ...] = ()) -> Callable:
    """Decorator: an option for every setting of a configuration class; the function gets those that
    were given, as ``given``.

    A flag goes before the environment, which click settles; :func:`configure` puts both before the
    recipe and the defaults.
    """
    fields = {name: field for name, field in configs.settings(kind).items() if name not in skip}

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def collect(**values: Any):
            chosen = {name: values.pop(name) for name in fields}
            return function(
                given={name: value for name, value in chosen.items() if value is not None}, **values
            )

        for field in reversed(fields.values()):
            collect = _option(field)(collect)
        return collect

    return decorate


def recipe(kind: Any, default: str | None = None) -> Callable:
    """``--recipe``, for a configuration class."""
    known = [name for name in configs.recipes() if configs.load_recipe(name)["task"] == kind.task]
    help = f"Settings of an experiment: {', '.join(known)}, or a TOML file."
    return click.option(
        "--recipe", metavar="FILE|NAME", default=default, show_default=bool(default), help=help
    )


def configure(kind: type, recipe: str | None, given: dict[str, Any]) -> Any:
    """The configuration of a command from its recipe and the settings given, as wrong usage where
    they are wrong.
    """
    try:
        sections = _sections_for(kind, configs.load_recipe(recipe)) if recipe else {}
        training = sections.get("training")
        if isinstance(training, dict) and any(name in given for name in configs.LENGTHS):
            # A length given replaces the recipe's, whatever either is counted in.
            sections["training"] = {
                name: value for name, value in training.items() if name not in configs.LENGTHS
            }
        return configs.merge(kind, sections, given)
    except Problem as error:
        raise click.UsageError(str(error)) from error


def _sections_for(kind: Any, recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe's sections that a command uses: making data takes only the data section of a
    recipe that trains on them.

    Raises:
        Problem: the recipe says that it is for another command.
    """
    recipe = dict(recipe)
    task = recipe.pop("task", kind.task)
    if task == kind.task:
        return recipe
    if kind is configs.MakeData and task == configs.Classify.task:
        return {name: section for name, section in recipe.items() if name == "data"}
    raise Problem(f"this recipe is for drawbench {task}, not for drawbench {kind.task}")
