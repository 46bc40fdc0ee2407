"""A setting: its default, help, role and limits, and the sections that settings are grouped in."""

import dataclasses
import difflib
import math
import reprlib
import types
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from drawbench.errors import Problem

ROLES = {
    "model": "the network",
    "experiment": "the data and how the network is trained",
    "machine": "where and how fast it runs",
    "report": "what is measured and how often",
}
MAX_INT = 2**63 - 1  # the largest integer that torch can hold


def setting(
    default: Any,
    help: str,
    *,
    role: str = "experiment",
    note: str | None = None,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Define a dataclass field that is a setting.

    Args:
        role: one of :data:`ROLES`. Runs that differ only in ``machine`` and ``report`` settings
            share a row in tables.
        note: what tables say where the value is not the default, because the papers use none;
            ``{}`` stands for the value.
        low, above, high: limits; ``low`` and ``high`` are allowed values, ``above`` is not.
        choices: the allowed words; empty: any.
    """
    if role not in ROLES:
        raise ValueError(f"role must be one of {', '.join(ROLES)}, got {role!r}")
    limits = {"low": low, "above": above, "high": high, "choices": choices}
    return dataclasses.field(
        default=default, metadata={"help": help, "role": role, "note": note, **limits}
    )


def selector(name: str) -> Any:
    """Define the field by which a section is chosen: ``model`` or ``dataset``."""
    return setting(name, "", choices=(name,))


def allowed_types(field: dataclasses.Field) -> tuple[type, ...]:
    """Return the types that an annotation names: (int, NoneType) for ``int | None``."""
    return typing.get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,)


def value_type(field: dataclasses.Field) -> type:
    """Return the type of a setting that is not None."""
    return next(kind for kind in allowed_types(field) if kind is not type(None))


def check(field: dataclasses.Field, value: Any) -> Any:
    """Return a value for a setting; an integer becomes a float where a float is expected.

    Raises:
        Problem: the value has the wrong type or is outside the limits.
    """
    name, allowed, limits = field.name, allowed_types(field), field.metadata
    if type(value) is int and abs(value) > MAX_INT:
        raise Problem(f"{name} must be below 2^63, got {shown(value)}")
    if type(value) is int and float in allowed:
        value = float(value)
    if type(value) not in allowed:  # isinstance would take True for an int
        words = ["nothing" if kind is type(None) else kind.__name__ for kind in allowed]
        raise Problem(f"{name} must be {' or '.join(words)}, got {shown(value)}")
    if value is None or isinstance(value, dict | bool):
        return value
    choices = limits.get("choices")
    if choices and value not in choices:
        hint = nearest(str(value), choices)
        raise Problem(f"{name} must be one of {', '.join(choices)}, got {shown(value)}{hint}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Problem(f"{name} must be a finite number, got {value}")
    low, above, high = limits.get("low"), limits.get("above"), limits.get("high")
    if low is not None and value < low:
        raise Problem(f"{name} must be at least {low}, got {value}")
    if above is not None and value <= above:
        raise Problem(f"{name} must be above {above}, got {value}")
    if high is not None and value > high:
        raise Problem(f"{name} must be at most {high}, got {value}")
    return value


class Section:
    """Base of the frozen dataclasses that hold settings; checks every value."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, check(field, getattr(self, field.name)))

    if TYPE_CHECKING:  # which settings a section has depends on the model or data set chosen

        def __getattr__(self, name: str) -> Any: ...


class ChosenSection(Section):
    """Base of the sections of one model or data set, named by ``model`` or ``dataset``."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The settings without that name: arguments of the factory of a model."""
        chosen = ("model", "dataset")
        return {name: value for name, value in vars(self).items() if name not in chosen}


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 120
_repr.maxlevel = 3


def shown(value: Any) -> str:
    """Return a value as messages show it: its ``repr``, shortened."""
    try:
        return _repr.repr(value)
    except ValueError:  # an integer with too many digits to print
        return f"a very long {type(value).__name__}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean ...?`` where a known word is close, else nothing."""
    close = difflib.get_close_matches(word[:100], list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
