"""Options made from the settings of :mod:`drawbench.config`, and the configuration that a command
line makes of them.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from drawbench import config as configs
from drawbench.cli import options
from drawbench.errors import Problem

GROUPS = {  # of options in help, by section of the configuration or role of the setting
    "data": "Data",
    "model": "Model",
    "experiment": "Training",
    "machine": "Machine",
    "report": "Measuring",
}


class SettingOption(click.Option):
    """The option of a setting; its value is None where it was not given."""

    def __init__(self, declarations: Sequence[str], setting: configs.Setting):
        self.setting, flag = setting, setting.name.replace("_", "-")
        kind: Any = click.Choice(setting.choices) if setting.choices else setting.type
        if setting.type is bool:
            flag, kind = f"{flag}/--no-{flag}", None
        elif setting.factory:
            kind = options.NameOrFactory(setting.choices)
        elif setting.name == "start":
            kind = options.RunFolder(path_type=str)
        names = [f"--{flag}", setting.name]
        super().__init__(names, type=kind, default=None, help=setting.help)


def settings(kind: type, skip: tuple[str, ...] = ()) -> Callable:
    """Add an option for every setting of a command; the function gets those given, as ``given``.

    A flag goes before the environment, which click settles; :func:`configure` puts both before the
    recipe and the defaults.
    """
    chosen = {name: each for name, each in configs.settings(kind).items() if name not in skip}
    added = [click.option(cls=SettingOption, setting=setting) for setting in chosen.values()]
    if any(each.factory and each.section == "model" for each in chosen.values()):
        added.append(ARGUMENTS)

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def collect(arguments: tuple[tuple[str, Any], ...] = (), **values: Any):
            given = {name: value for name in chosen if (value := values.pop(name)) is not None}
            return function(
                given=given | ({"arguments": dict(arguments)} if arguments else {}), **values
            )

        return options.together(*added)(collect)

    return decorate


class _Argument(click.ParamType):
    """``NAME=VALUE``; the value is a number, true, false or a word."""

    name = "name=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        name, equals, text = value.partition("=")
        if not equals or not name.isidentifier():
            self.fail(f"{value!r} is not NAME=VALUE, such as gain=2.5", param, ctx)
        for read in (int, float):
            try:
                return name, read(text)
            except ValueError:
                continue
        return name, {"true": True, "false": False}.get(text.lower(), text)


ARGUMENTS = click.option(
    "--set",
    "arguments",
    type=_Argument(),
    multiple=True,
    metavar="NAME=VALUE",
    help="An argument for a model of your own (--model module:factory).",
)


class _Recipe(click.Path):
    """The name of a recipe, or a file; names can be completed."""

    def __init__(self, names: list[str]):
        super().__init__()
        self.names = names

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name) for name in self.names if name.startswith(incomplete)]
        return names or super().shell_complete(ctx, param, incomplete)


def recipe(kind: Any, default: str | None = None) -> Callable:
    """Add ``--recipe`` for a command."""
    names = [name for name in configs.recipes() if configs.load_recipe(name)["task"] == kind.task]
    return click.option(
        "--recipe",
        type=_Recipe(names),
        metavar="FILE|NAME",
        default=default,
        help=f"Settings of an experiment: {', '.join(names)}, a TOML file, or the config.json of a "
        "run, to repeat it.",
    )


class TrainingCommand(click.Command):
    """A command whose help groups the settings and shows the defaults of *this* command line."""

    recipe: str | None = None  #: the recipe that is always used

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named, _, _ = self.make_parser(ctx).parse_args(list(args))
        ctx.meta["drawbench.named"] = {
            name: named[name] for name in ("recipe", "dataset", "model") if name in named
        }
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        config = self._config(ctx)
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in GROUPS.values()}
        groups["Options"] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            (flags, help), title = record, "Options"
            if isinstance(param, SettingOption):
                setting, default = param.setting, param.setting.default_in_words
                title = GROUPS[setting.section if setting.section in GROUPS else setting.role]
                if config:
                    values = vars(getattr(config, setting.section))
                    if setting.name not in values:
                        continue  # the model or data set named on this command line lacks it
                    word = str(values[setting.name])
                    default = {"True": "yes", "False": "no", "None": ""}.get(word, word)
                elif setting.owners:
                    help = f"{help.rstrip('.')} ({', '.join(setting.owners)} only)."
                help += f"  [default: {default}]" if default else ""
            groups[title].append((flags, help))
        for title, rows in groups.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _config(self, ctx: click.Context) -> Any:
        """The configuration that this command line names; None where it names none."""
        given = dict(ctx.meta["drawbench.named"])
        recipe = given.pop("recipe", self.recipe)
        if not recipe and not given:
            return None
        kind = configs.Generate if ctx.info_name == "generate" else configs.Classify
        try:
            return configure(kind, recipe or usual_recipe(kind, given), given)
        except click.UsageError:
            return None


def usual_recipe(kind: type, given: dict[str, Any]) -> str | None:
    """Return the recipe that a command takes unless another is given: that of its data set."""
    dataset = given.get("dataset", "mnist")
    if kind is not configs.Generate or dataset not in configs.recipes():
        return None
    usual = configs.load_recipe(dataset).get("model", {}).get("model")
    return dataset if given.get("model", usual) == usual else None


def configure(kind: Any, recipe: str | None, given: dict[str, Any]) -> Any:
    """Return the configuration of a recipe and the settings given; wrong ones are wrong usage."""
    try:
        sections = configs.load_recipe(recipe) if recipe else {}
        task = sections.pop("task", kind.task)
        if kind is configs.MakeData and task == configs.Classify.task:  # its data alone are made
            sections = {name: section for name, section in sections.items() if name == "data"}
        elif task != kind.task:
            raise Problem(f"this recipe is for drawbench {task}, not for drawbench {kind.task}")
        return configs.merge(kind, configs.under(sections, given), given)
    except Problem as error:
        raise click.UsageError(str(error)) from error


def trusted(given: dict[str, Any], trust: tuple[str, ...]) -> frozenset[str]:
    """Return the user's own modules that were named on the command line or in the environment."""
    names = [given.get("model"), given.get("dataset")]
    return frozenset([*trust, *(name for name in names if name and ":" in name)])


def with_images(config: Any, images: Path | None) -> Any:
    """Return a run's configuration with its folder of images, or of ``--data``, where it is now.

    Raises:
        UsageError: the run is not on a folder.
    """
    if images is None:
        return config
    if getattr(config.data, "data", None):
        return configs.replace(config, data=str(images))
    if hasattr(config.data, "images"):
        return configs.replace(config, images=str(images))
    raise click.UsageError(
        "--images and --data go with a run on a folder, of images or made by make-data"
    )


def check_apart(config: Any, runs: Path) -> None:
    """Raise `Problem` if runs would lie in the folder of images that they are trained on: the next
    one would be trained on their figures.
    """
    images = getattr(config.data, "images", None)
    if images is not None and runs.resolve().is_relative_to(Path(images).resolve()):
        raise Problem(
            f"the folder of runs, {runs}, lies in the folder of images, {images}, so their figures "
            "would be taken for images: give --runs DIR elsewhere"
        )


def with_stored_set(config: Any, given: dict[str, Any]) -> Any:
    """Return a configuration with the settings of the data set in the folder ``--data``.

    Raises:
        UsageError: one of the settings given contradicts them.
    """
    return configs.replace(config, **stored_settings(config, given))


def stored_settings(config: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings in which the data set in the folder ``--data`` differs from a
    configuration; none without such a folder. Arguments and errors as of :func:`with_stored_set`.
    """
    place = getattr(config.data, "data", None)
    if place is None:
        return {}
    from drawbench.data import cards

    made_with = cards.settings(place)
    for name, value in made_with.items():
        if given.get(name, value) not in (value, "auto"):
            flag = "--" + name.replace("_", "-")
            raise click.UsageError(
                f"{flag} {given[name]} contradicts --data {place}, which has {flag} {value}; "
                "leave one of them out"
            )
    known = vars(config.data)
    return {
        name: value for name, value in made_with.items() if name in known and known[name] != value
    }
