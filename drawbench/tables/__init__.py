"""Tables from finished runs.

To add one, write a module with ``tables(records) -> list[Table]`` and name it in :data:`MODULES`.
"""

from drawbench.records import Record
from drawbench.tables import (
    captions,
    classes,
    classification,
    cost,
    equal_images,
    likelihood,
    robustness,
    settings,
    two_digits,
)
from drawbench.tables.table import Table

MODULES = (
    classification,
    classes,
    likelihood,
    settings,
    two_digits,
    captions,
    robustness,
    equal_images,
    cost,
)


def make(records: list[Record]) -> list[Table]:
    """Return every table that has rows."""
    return [table for module in MODULES for table in module.tables(records) if table.rows]
