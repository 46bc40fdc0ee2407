"""A table and its three faces: CSV for programs, Markdown for reading, LaTeX for a paper."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from drawbench.files import write_atomically

NOTHING = "-"
INTERVAL = "95 % interval"
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    letter: "\\" + letter for letter in "&%$#_{}"
}


@dataclass(frozen=True)
class Table:
    """Rows with what a reader must know of them.

    Attributes: name: file name without ending. title, note: what it is, and how to read it. rows:
        values by column; None, or a column left out, where there is none. ``low`` and ``high`` are
        shown as one interval. A
            ``Decimal`` is shown with the digits that it has, as numbers of others are.
        decimals: of the numbers of a column as they are shown; 2 if not given.
        wide: the rows as a person reads them, where those of the CSV are too many.
    """

    name: str
    title: str
    note: str
    rows: list[dict[str, Any]]
    decimals: dict[str, int] = field(default_factory=dict)
    wide: list[dict[str, Any]] | None = None

    def shown(self) -> pd.DataFrame:
        """Text as a person reads it."""
        frame = _frame(self.wide or self.rows)
        text = pd.DataFrame(
            {
                name: [_shown(value, self.decimals.get(str(name), 2)) for value in frame[name]]
                for name in frame
            }
        )
        if "low" in text:
            both = [
                f"{low} - {high}" if low != NOTHING else NOTHING
                for low, high in zip(text["low"], text["high"], strict=True)
            ]
            text = text.assign(low=both).rename(columns={"low": INTERVAL}).drop(columns="high")
        return text

    def numeric(self) -> list[bool]:
        """For each column of :meth:`shown`, whether it holds numbers."""
        frame = _frame(self.wide or self.rows)
        return [
            name == INTERVAL
            or all(isinstance(value, int | float | Decimal) for value in frame[name].dropna())
            for name in self.shown()
        ]

    def csv(self) -> str:
        """Numbers with six decimals at most; empty where there is none."""
        frame = _frame(self.rows)
        rounded = {
            name: [round(value, 6) if isinstance(value, float) else value for value in frame[name]]
            for name in frame
        }
        return pd.DataFrame(rounded, dtype=object).to_csv(index=False, lineterminator="\n")

    def markdown(self) -> str:
        """A title, the table, the note."""
        shown = self.shown().map(_plain)
        rules = ["--:" if right else "---" for right in self.numeric()]
        lines = [[str(name) for name in shown], rules, *shown.to_numpy().tolist()]
        return "\n".join(
            [
                f"## {_plain(self.title)}",
                "",
                *(f"| {' | '.join(line)} |" for line in lines),
                "",
                _plain(self.note),
                "",
            ]
        )

    def latex(self) -> str:
        """A ``table`` as wide as the text, with the rules of booktabs."""
        places = "".join("r" if right else "l" for right in self.numeric())
        body = self.shown().rename(columns=_latex).map(_latex)
        title = re.sub(
            r"^(Table \d+): (.*)", r"\2 (\1 of the paper)", self.title
        )  # LaTeX counts its own tables
        made = body.to_latex(
            index=False,
            column_format=places,
            caption=_latex(f"{title}. {self.note}"),
            label=f"tab:{self.name}",
        )
        made = made.replace(
            "\\begin{tabular}", "\\resizebox{\\linewidth}{!}{\\begin{tabular}"
        ).replace("\\end{tabular}", "\\end{tabular}}")
        return "% needs booktabs and graphicx\n" + made

    def save(self, folder: Path) -> list[Path]:
        """Write all three; the same rows give the same bytes."""
        stem = re.sub(r"[^\w.-]+", "-", self.name)[:100]  # a data set may be called anything
        if stem != self.name:  # so that two names have two files
            stem += "-" + hashlib.sha256(self.name.encode()).hexdigest()[:8]
        paths = [folder / f"{stem}.{ending}" for ending in ("csv", "md", "tex")]
        for path, text in zip(paths, (self.csv(), self.markdown(), self.latex()), strict=True):
            write_atomically(path, text.encode())
        return paths


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A column for each name, in the order in which they first appear; columns without any value
    are left out.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    held = [name for name in names if any(row.get(name) is not None for row in rows)]
    return pd.DataFrame({name: [row.get(name) for row in rows] for name in held}, dtype=object)


def _shown(value: Any, decimals: int) -> str:
    if value is None:
        return NOTHING
    return (
        f"{value:,.{decimals}f}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


def _latex(text: str) -> str:
    """Text that LaTeX sets as it stands; a range gets its dash."""
    return "".join(_LATEX.get(letter, letter) for letter in str(text)).replace(" - ", "--")


def _plain(text: str) -> str:
    """Text that stays in its cell and is nothing but text: names of runs and models are chosen by
    users.
    """
    return (
        " ".join(text.split())
        .replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("`", "\\`")
    )
