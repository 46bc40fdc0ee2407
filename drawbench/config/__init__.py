"""What can be set: sections of settings for each model, data set and command.

A setting is one line: its default, limits, help and role. From it come the option on the command
line, the key in a recipe and the entry in ``config.json``. Nothing heavy is imported here, because
``--help`` needs it.

Precedence: flag > environment > recipe > default.
"""

from drawbench.config.data import SOURCES, Cluttered
from drawbench.config.fields import ROLES, shown
from drawbench.config.models import CLASSIFIERS, GENERATORS
from drawbench.config.recipe import load_recipe, recipes, under
from drawbench.config.tasks import (
    TASKS,
    Classify,
    Generate,
    MakeData,
    MeasureModel,
    Setting,
    from_dict,
    merge,
    replace,
    sections,
    settings,
    stored_settings,
    to_dict,
)
from drawbench.config.training import DEVICES, LENGTHS, MAX_BATCH, Training

__all__ = [
    "CLASSIFIERS",
    "DEVICES",
    "GENERATORS",
    "LENGTHS",
    "MAX_BATCH",
    "ROLES",
    "SOURCES",
    "TASKS",
    "Classify",
    "Cluttered",
    "Generate",
    "MakeData",
    "MeasureModel",
    "Setting",
    "Training",
    "from_dict",
    "load_recipe",
    "merge",
    "recipes",
    "replace",
    "sections",
    "settings",
    "shown",
    "stored_settings",
    "to_dict",
    "under",
]
