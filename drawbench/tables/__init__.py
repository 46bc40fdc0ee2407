"""Tables from run folders. To add one: write its file, with ``tables(records) -> list[Table]``,
then name it here.
"""

from drawbench.records import Record
from drawbench.tables import classification, cost, likelihood, robustness, settings, two_digits
from drawbench.tables.table import Table

KINDS = (
    classification,
    likelihood,
    settings,
    two_digits,
    robustness,
    cost,
)


def make(records: list[Record]) -> list[Table]:
    """Every table that has rows."""
    return [table for kind in KINDS for table in kind.tables(records) if table.rows]
