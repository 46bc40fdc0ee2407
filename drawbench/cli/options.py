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
    help="Where original files lie or are downloaded to.  "
    "[default: datasets/sources; env: DRAWBENCH_SOURCES]",
)
DATASETS = click.option(
    "--datasets",
    type=folder,
    default=Path("datasets"),
    show_default=True,
    help="Folder of generated data sets.",
)
IMAGES = click.option(
    "--images",
    type=folder,
    help="For a run on a folder of images: where that folder is now.",
)
TENSORBOARD = click.option(
    "--tensorboard", is_flag=True, help="Also write the metrics for TensorBoard."
)
TRUST = click.option(
    "--trust",
    multiple=True,
    metavar="MODULE",
    help="Let a run import this module of yours, which has its model or data set.",
)
PLACES = click.argument(
    "places",
    nargs=-1,
    metavar="[RUN|FOLDER]...",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
USUAL_PLACES = (Path("results/published"), Path("results/runs"))
GROUPS = {  # of options in help, by section of the configuration or role of the setting
    "data": "Data",
    "model": "Model",
    "experiment": "Training",
    "machine": "Machine",
    "report": "Measuring",
}


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


def _remember_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.meta["drawbench.debug"] = value


def common(command: Callable) -> Callable:
    """Add ``--json`` and ``--debug``."""
    command = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_remember_debug,
        help="Show the traceback of a problem.",
    )(command)
    return click.option(
        "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
    )(command)


NEW_RUN_OPTIONS = (
    click.option(
        "--run", "name", help="Name of the run folder.  [default: made from the settings]"
    ),
    FORCE,
    TENSORBOARD,
    TRUST,
    RUNS,
    DATASETS,
    SOURCES,
    common,
)


def NEW_RUN(command: Callable) -> Callable:
    """Add the options of every command that starts a run."""
    for option in reversed(NEW_RUN_OPTIONS):
        command = option(command)
    return command


# ------------------------------------------------------------------------- options from settings


class SettingOption(click.Option):
    """The option of a setting; its value is None where it was not given."""

    setting: configs.Setting


def _option(setting: configs.Setting) -> Callable:
    flag = "--" + setting.name.replace("_", "-")
    help = setting.help
    if setting.owners:
        help = f"{help.rstrip('.')} ({', '.join(setting.owners)} only)."
    flags = flag
    kind: Any = click.Choice(setting.choices) if setting.choices else setting.type
    if setting.type is bool:
        flags, kind = f"{flag}/--no-{setting.name.replace('_', '-')}", None
    elif setting.factory:
        kind = _NameOrFactory(setting.choices)
    option = click.option(
        flags, setting.name, type=kind, default=None, help=help, cls=SettingOption
    )

    def decorate(function: Callable) -> Callable:
        function = option(function)
        function.__click_params__[-1].setting = setting  # type: ignore[attr-defined]
        return function

    return decorate


class _NameOrFactory(click.Choice):
    """A name, or ``module:factory`` of the user's own."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "[" + "|".join([*(str(choice) for choice in self.choices), "MODULE:FACTORY"]) + "]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if ":" in str(value) else super().convert(value, param, ctx)


def settings(kind: type, skip: tuple[str, ...] = ()) -> Callable:
    """Add an option for every setting of a command; the function gets those given, as ``given``.

    A flag goes before the environment, which click settles; :func:`configure` puts both before the
    recipe and the defaults.
    """
    chosen = {name: each for name, each in configs.settings(kind).items() if name not in skip}
    own = any(each.factory and each.section == "model" for each in chosen.values())

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def collect(**values: Any):
            given = {name: values.pop(name) for name in chosen}
            given = {name: value for name, value in given.items() if value is not None}
            if own and (pairs := values.pop("arguments")):
                given["arguments"] = dict(pairs)
            return function(given=given, **values)

        if own:
            collect = click.option(
                "--set",
                "arguments",
                type=_Argument(),
                multiple=True,
                metavar="NAME=VALUE",
                help="An argument for a model of your own (--model module:factory).",
            )(collect)
        for setting in reversed(chosen.values()):
            collect = _option(setting)(collect)
        return collect

    return decorate


class _Argument(click.ParamType):
    """``NAME=VALUE``; the value is a number, true, false or a word."""

    name = "name=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not equals or not name.isidentifier():
            self.fail(f"{value!r} is not NAME=VALUE, such as gain=2.5", param, ctx)
        for read in (int, float):
            try:
                return name, read(text)
            except ValueError:
                continue
        return name, {"true": True, "false": False}.get(text.lower(), text)


def recipe(kind: Any, default: str | None = None) -> Callable:
    """Add ``--recipe`` for a command."""
    names = [name for name in configs.recipes() if configs.load_recipe(name)["task"] == kind.task]
    return click.option(
        "--recipe",
        metavar="FILE|NAME",
        default=default,
        show_default=bool(default),
        help=f"Settings of an experiment: {', '.join(names)}, or a TOML file.",
    )


class TrainingCommand(click.Command):
    """A command whose help groups the settings and shows the defaults of *this* command line."""

    recipe: str | None = None  #: the recipe that is always used

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["drawbench.args"] = list(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        config = self._config(ctx)
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in GROUPS.values()}
        others = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if not isinstance(param, SettingOption):
                others.append(record)
                continue
            setting = param.setting
            values = dataclasses.asdict(getattr(config, setting.section)) if config else {}
            if config and setting.name not in values:
                continue  # the model or data set named on this command line lacks it
            default = _shown(values[setting.name]) if config else setting.default_in_words
            title = GROUPS[setting.section if setting.section in GROUPS else setting.role]
            flags, help = record
            groups[title].append((flags, f"{help}  [default: {default}]" if default else help))
        for title, rows in groups.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        with formatter.section("Options"):
            formatter.write_dl(others)

    def _config(self, ctx: click.Context) -> Any:
        """The configuration that this command line names; None where it names none."""
        given: dict[str, str] = {}
        args = ctx.meta.get("drawbench.args", [])
        for name in ("recipe", "dataset", "model"):
            for number, word in enumerate(args):
                if word == f"--{name}" and number + 1 < len(args):
                    given[name] = args[number + 1]
                elif word.startswith(f"--{name}="):
                    given[name] = word.partition("=")[2]
        kind = configs.Generate if ctx.info_name == "generate" else configs.Classify
        chosen = given.pop("recipe", None) or self.recipe
        if not chosen and not given:
            return None
        if (
            chosen is None
            and kind is configs.Generate
            and given.get("dataset") in configs.recipes()
        ):
            chosen = given["dataset"]
        try:
            return configure(kind, chosen, given)
        except (click.UsageError, Problem):
            return None


def _shown(value: Any) -> str:
    """A default in words; empty where there is none."""
    if value is None:
        return ""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def configure(kind: type, recipe: str | None, given: dict[str, Any]) -> Any:
    """Return the configuration of a recipe and the settings given; wrong ones are wrong usage."""
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
    """Return the recipe's sections that a command uses; making data takes the data section alone.

    Raises:
        Problem: the recipe is for another command.
    """
    recipe = dict(recipe)
    task = recipe.pop("task", kind.task)
    if task == kind.task:
        return recipe
    if kind is configs.MakeData and task == configs.Classify.task:
        return {name: section for name, section in recipe.items() if name == "data"}
    raise Problem(f"this recipe is for drawbench {task}, not for drawbench {kind.task}")


def trusted(given: dict[str, Any], trust: tuple[str, ...]) -> frozenset[str]:
    """Return the user's own modules that were named on the command line or in the environment."""
    names = [given.get("model"), given.get("dataset")]
    return frozenset([*trust, *(name for name in names if name and ":" in name)])


def with_images(config: Any, images: Path | None) -> Any:
    """Return a run's configuration with its folder of images where it is now.

    Raises:
        UsageError: the run is not on a folder.
    """
    if images is None:
        return config
    if not hasattr(config.data, "images"):
        raise click.UsageError("--images goes with a run on a folder of images only")
    return configs.replace(config, images=str(images))
