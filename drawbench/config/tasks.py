"""The configuration of each command: sections of settings, merged from recipes and flags.

The class of the ``data`` and ``model`` sections is chosen by their field ``dataset`` or ``model``;
``module:factory`` stands for one of your own.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from drawbench.config.data import (
    DRAWN,
    FILES,
    LABELLED,
    MEASURED,
    BinaryDigits,
    Cluttered,
    ClutteredFiles,
    Data,
    DrawnUserData,
    UserData,
)
from drawbench.config.fields import Section, check, nearest, shown, value_type
from drawbench.config.models import (
    CLASSIFIERS,
    GENERATORS,
    DrawClassifier,
    DrawGenerator,
    MeasuredModel,
    Model,
    UserModel,
)
from drawbench.config.training import ClassifyTraining, GenerateTraining
from drawbench.errors import Problem

SELECTORS = {"data": "dataset", "model": "model"}  # section -> the setting that chooses its class
RENAMED = {"average": "ema_decay", "save_every": "checkpoint_every"}  # since earlier versions


@dataclass(frozen=True)
class MakeData:
    """Settings of ``drawbench make-data``."""

    task: ClassVar[str] = "make-data"
    kinds: ClassVar[dict[str, Mapping[str, type]]] = {"data": FILES}
    own: ClassVar[dict[str, type]] = {}  # classes for module:factory, by section
    data: Data = field(default_factory=ClutteredFiles)


@dataclass(frozen=True)
class Classify:
    """Settings of ``drawbench classify``."""

    task: ClassVar[str] = "classify"
    kinds: ClassVar[dict[str, Mapping[str, type]]] = {"data": LABELLED, "model": CLASSIFIERS}
    own: ClassVar[dict[str, type]] = {"data": UserData, "model": UserModel}
    data: Data = field(default_factory=Cluttered)
    model: Model | UserModel = field(default_factory=DrawClassifier)
    training: ClassifyTraining = field(default_factory=ClassifyTraining)


@dataclass(frozen=True)
class Generate:
    """Settings of ``drawbench generate``."""

    task: ClassVar[str] = "generate"
    kinds: ClassVar[dict[str, Mapping[str, type]]] = {"data": DRAWN, "model": GENERATORS}
    own: ClassVar[dict[str, type]] = {"data": DrawnUserData, "model": UserModel}
    data: Data = field(default_factory=BinaryDigits)
    model: Model | UserModel = field(default_factory=DrawGenerator)
    training: GenerateTraining = field(default_factory=GenerateTraining)


@dataclass(frozen=True)
class MeasureModel:
    """Settings of ``drawbench evaluate --model``."""

    task: ClassVar[str] = "evaluate"
    kinds: ClassVar[dict[str, Mapping[str, type]]] = {"data": MEASURED, "model": {}}
    own: ClassVar[dict[str, type]] = {"data": UserData, "model": MeasuredModel}
    data: Data = field(default_factory=ClutteredFiles)
    model: MeasuredModel = field(default_factory=MeasuredModel)


TASKS: dict[str, type] = {kind.task: kind for kind in (MakeData, Classify, Generate, MeasureModel)}


# ------------------------------------------------------------------------------ what can be set


@dataclass(frozen=True)
class Setting:
    """A setting of a command.

    Attributes:
        section: ``data``, ``model`` or ``training``.
        field: its dataclass field, the first owner's where the owners' differ.
        help: what it is.
        owners: the models or data sets that have it; empty: all.
        defaults: default by owner; empty for settings that depend on no model or data set.
        choices: the words allowed, by any owner; empty: any. ``model`` and ``dataset`` also take
            ``module:factory`` where ``factory`` is true.
    """

    name: str
    section: str
    field: dataclasses.Field
    help: str
    owners: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    choices: tuple[str, ...] = ()
    factory: bool = False

    @property
    def type(self) -> type:
        """Its type where it is not None."""
        return value_type(self.field)

    @property
    def role(self) -> str:
        """One of :data:`drawbench.config.fields.ROLES`."""
        return self.field.metadata["role"]

    @property
    def default(self) -> Any:
        """The default, the most frequent one where owners differ."""
        values = list(self.defaults.values()) or [self.field.default]
        return max(values, key=values.count)

    @property
    def default_in_words(self) -> str:
        """The default as help shows it, such as ``12, stn 28``; empty where there is none."""
        others = [
            f"{owner} {_word(value)}"
            for owner, value in self.defaults.items()
            if value != self.default
        ]
        return ", ".join(([] if self.default is None else [_word(self.default)]) + others)


def _word(value: Any) -> str:
    return {"True": "yes", "False": "no", "None": "none"}.get(str(value), str(value))


@functools.cache
def settings(kind: Any) -> dict[str, Setting]:
    """Return the settings of a command by name; a name is unique across its sections.

    The ``arguments`` of a model of your own are left out: they are its factory's. ``model`` and
    ``dataset`` are explained by the docstrings of the classes that they choose.
    """
    known: dict[str, Setting] = {}
    for section in sections(kind):
        default, own = type(getattr(kind(), section)), kind.own.get(section)
        kinds = kind.kinds.get(section) or {"": default}
        by_name: dict[str, dict[str, dataclasses.Field]] = {}
        for owner, cls in kinds.items():
            for each in dataclasses.fields(cls):
                by_name.setdefault(each.name, {})[owner] = each
        by_name.pop("arguments", None)
        for name, fields in by_name.items():
            first, *_ = fields.values()
            choices = (word for each in fields.values() for word in each.metadata["choices"])
            known[name] = Setting(
                name,
                section,
                first,
                first.metadata["help"],
                () if len(fields) == len(kinds) else tuple(fields),
                {owner: each.default for owner, each in fields.items() if owner},
                tuple(dict.fromkeys(choices)),
            )
        if kind.kinds.get(section):
            name = SELECTORS[section]
            explained = kinds | ({"module:factory": own} if own else {})
            known[name] = dataclasses.replace(
                known[name],
                field=default.__dataclass_fields__[name],
                help=" ".join(
                    f"{k}: {cls.__doc__.splitlines()[0]}" for k, cls in explained.items()
                ),
                defaults={},
                factory=bool(own),
            )
    return known


def sections(kind: Any) -> tuple[str, ...]:
    """Return the names of the sections of a configuration class."""
    return tuple(each.name for each in dataclasses.fields(kind))


# ------------------------------------------------------------------------- making a configuration


def merge(kind: Any, recipe: dict[str, Any], given: dict[str, Any]) -> Any:
    """Return a configuration: given settings, over those of a recipe, over the defaults.

    Where the given ``model`` or ``dataset`` is another than the recipe's, the settings of the
    recipe that the other one lacks are left out.

    Args:
        recipe: sections of settings.
        given: settings by name, and ``arguments`` of a model of your own.

    Raises:
        Problem: an unknown section or setting, one that the chosen model or data set does not
            have, or a wrong type or value.
    """
    _check_sections(kind, recipe)
    known = settings(kind)
    for name in given:
        if name not in known and name != "arguments":
            raise Problem(f"unknown setting {name!r}{nearest(name, known)}")
    names = sections(kind)
    return kind(**{name: _section(kind, name, recipe.get(name, {}), given) for name in names})


def _check_sections(kind: Any, values: dict[Any, Any]) -> None:
    """Check that the values are sections of a configuration class."""
    for name, section in values.items():
        if name not in sections(kind):
            raise Problem(f"unknown section {shown(name)}{nearest(name, sections(kind))}")
        if not isinstance(section, dict):
            raise Problem(f"{name} must be a section with keys, got {shown(section)}")


def _section(kind: Any, section: str, recipe: dict[str, Any], given: dict[str, Any]) -> Section:
    """Return a section, strictly checked."""
    names = {name for name, each in settings(kind).items() if each.section == section}
    names |= {"arguments"} if section == "model" else set()
    given = {name: value for name, value in given.items() if name in names}
    cls = _class(kind, section, recipe)
    _refuse_foreign(kind, section, cls, recipe)
    selector = SELECTORS.get(section, "")
    if selector in given and given[selector] != recipe.get(selector):
        cls = _class(kind, section, given)
        kept = cls.__dataclass_fields__.keys() - {"arguments"}
        recipe = {name: value for name, value in recipe.items() if name in kept}
    values = {**recipe, **given}
    _refuse_foreign(kind, section, cls, values)
    if isinstance(recipe.get("arguments"), dict) and "arguments" in given:
        values["arguments"] = {**recipe["arguments"], **given["arguments"]}
    return cls(**values)


def _class(kind: Any, section: str, values: dict[str, Any]) -> Any:
    """Return the class of a section for its model or data set, the default one if not given.

    Raises:
        Problem: there is no such model or data set.
    """
    kinds, selector = kind.kinds.get(section, {}), SELECTORS.get(section)
    name = None if selector is None else values.get(selector)  # a file may have a key ""
    if selector is None or name is None:
        return type(getattr(kind(), section))
    if isinstance(name, str) and name in kinds:
        return kinds[name]
    if isinstance(name, str) and ":" in name and section in kind.own:
        return kind.own[section]
    words = [*kinds, *(["module:factory"] if section in kind.own else [])]
    raise Problem(
        f"{selector} must be one of {', '.join(words)}, got {shown(name)}"
        f"{nearest(str(name), kinds)}"
    )


def _refuse_foreign(kind: Any, section: str, cls: Any, values: dict[str, Any]) -> None:
    """Check that a section's class has these settings.

    Raises:
        Problem: it lacks one; the message names the models or data sets that have it.
    """
    known = settings(kind)
    lacking = [key for key in values if key not in cls.__dataclass_fields__]
    for key in lacking:
        if key in RENAMED:
            raise Problem(f"{key} is now called {RENAMED[key]}")
        if key in known and known[key].section != section:
            raise Problem(f"{key} belongs in section [{known[key].section}], not in [{section}]")
        if key not in known and key != "arguments":
            here = [each.name for each in known.values() if each.section == section]
            raise Problem(f"unknown key {shown(key)} in section [{section}]{nearest(key, here)}")
    if not lacking:
        return
    name = values.get(SELECTORS[section]) or getattr(cls, SELECTORS[section])
    if "arguments" in lacking:
        raise Problem(f"{name} takes no arguments; they are for a model given as module:factory")
    whose = ", ".join(f"{key} of {_listed(known[key].defaults)}" for key in lacking)
    none = {1: "none", 2: "neither"}.get(len(lacking), "none of them")
    own = f"; set its arguments with --set {lacking[0]}=..." if section == "model" else ""
    raise Problem(
        f"{whose.replace(' of ', ' is a setting of ', 1)}; {name} has {none}"
        f"{own if ':' in name else ''}"
    )


def _listed(words: Mapping[str, Any]) -> str:
    """Return words as a list in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def replace(config: Any, **changes: Any) -> Any:
    """Return a configuration with some settings changed, by name, whatever their section."""
    return merge(type(config), dataclasses.asdict(config), changes)


# -------------------------------------------------------------------------- stored configurations


def to_dict(config: Any) -> dict[str, Any]:
    """Return nested dictionaries with the task's name, for ``config.json``."""
    return {"task": config.task, **dataclasses.asdict(config)}


def from_dict(values: Any) -> Any:
    """Return the configuration that :func:`to_dict` stored, in this or an earlier version.

    Earlier versions stored the settings of all models and data sets, some under other names and
    in other sections. Settings of models and data sets other than the chosen ones are ignored.

    Raises:
        Problem: an unknown task, section or setting, or a wrong type or value.
    """
    kind, flat = _flat(values)
    known = settings(kind)
    classes = {name: _class(kind, name, flat) for name in sections(kind)}
    for name in flat:
        if name not in known and name != "arguments":
            raise Problem(f"unknown setting {shown(name)}{nearest(name, known)}")
    return kind(
        **{
            section: cls(**{name: flat[name] for name in flat.keys() & cls.__dataclass_fields__})
            for section, cls in classes.items()
        }
    )


def stored_settings(values: Any) -> dict[str, Any]:
    """Return the settings of a stored configuration by name, defaults filled in.

    Unlike :func:`from_dict` this keeps settings, models and data sets that are not known here, so
    that the runs of another version can be tabulated.

    Raises:
        Problem: ``values`` is no configuration, or a known setting has a wrong type or value.
    """
    kind, flat = _flat(values)
    fields: dict[str, dataclasses.Field] = {}
    try:
        for section in sections(kind):
            fields |= _class(kind, section, flat).__dataclass_fields__
    except Problem:  # a model or data set of another version
        return flat
    defaults = {name: each.default for name, each in fields.items() if name != "arguments"}
    others = settings(kind).keys() - fields
    return defaults | {
        name: check(fields[name], value) if name in fields else value
        for name, value in flat.items()
        if name not in others
    }


def _flat(values: Any) -> tuple[Any, dict[str, Any]]:
    """Return the class and the settings by their present names of a stored configuration."""
    if not isinstance(values, dict):
        raise Problem(f"a configuration must be a table of sections, got {shown(values)}")
    task = values.get("task")
    if not isinstance(task, str) or task not in TASKS:
        raise Problem(f"unknown task {shown(task)}; known are {', '.join(TASKS)}")
    stored = {name: section for name, section in values.items() if name != "task"}
    _check_sections(TASKS[task], stored)
    return TASKS[task], {
        RENAMED.get(str(key), str(key)): value
        for section in stored.values()
        for key, value in section.items()
    }
