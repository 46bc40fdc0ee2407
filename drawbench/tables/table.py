"""A table as CSV for programs, Markdown for reading and LaTeX for a paper."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from drawbench.files import write_atomically

MISSING = "-"
INTERVAL = "95% interval"
_LATEX = str.maketrans(
    {char: "\\" + char for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
_MARKDOWN = str.maketrans({"\\": "\\\\", "|": "\\|", "<": "&lt;", "`": "\\`"})
# As wide as the text at most; narrower tables keep their size.
_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"


@dataclass(frozen=True)
class Table:
    """Rows, and what a reader must know about them.

    Attributes:
        name: file name without ending.
        title, note: what it is, and how to read it.
        rows: values by column; None, or the column left out, where there is none. ``low`` and
            ``high`` are shown as one interval. A ``Decimal`` is shown with its own digits.
        decimals: digits of a column as shown; 2 if not given.
        wide: the rows as shown, where those of the CSV are too many.
        paper: the few columns that a paper has room for, for LaTeX; there the ``notes`` become
            marks behind the first column. Empty: all columns.
        paper_note: the note there, where it is another.
    """

    name: str
    title: str
    note: str
    rows: list[dict[str, Any]]
    decimals: dict[str, int] = field(default_factory=dict)
    wide: list[dict[str, Any]] | None = None
    paper: tuple[str, ...] = ()
    paper_note: str = ""

    def shown(self) -> pd.DataFrame:
        """Return the text that a person reads."""
        frame = _frame(self.wide or self.rows)
        text = pd.DataFrame(
            {name: [_shown(v, self.decimals.get(name, 2)) for v in frame[name]] for name in frame}
        )
        if "low" in text:
            both = (text["low"] + " - " + text["high"]).where(text["low"] != MISSING, MISSING)
            text = text.assign(low=both).rename(columns={"low": INTERVAL}).drop(columns="high")
        return text

    def numeric(self) -> dict[str, bool]:
        """Return for each column of :meth:`shown` whether it holds numbers."""
        frame = _frame(self.wide or self.rows)
        return {
            name: name == INTERVAL
            or all(isinstance(value, int | float | Decimal) for value in frame[name].dropna())
            for name in self.shown()
        }

    def csv(self) -> str:
        """Return numbers with at most six decimals; cells without a value are empty."""
        frame = _frame(self.rows)
        rounded = {
            name: [round(value, 6) if isinstance(value, float) else value for value in frame[name]]
            for name in frame
        }
        return pd.DataFrame(rounded, dtype=object).to_csv(index=False, lineterminator="\n")

    def markdown(self) -> str:
        """Return the title, the table and the note."""
        shown = self.shown().map(_plain)
        rules = ["--:" if right else "---" for right in self.numeric().values()]
        lines = [list(shown), rules, *shown.to_numpy().tolist()]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"## {_plain(self.title)}\n\n{table}\n\n{_plain(self.note)}\n"

    def latex(self) -> str:
        """Return a ``table`` no wider than the text, with the rules of booktabs."""
        shown, numeric = self.shown(), self.numeric()
        chosen = [name for name in self.paper if name in shown] or list(shown)
        body = shown[chosen].rename(columns=_latex).map(_latex)
        footnotes: dict[str, str] = {MISSING: ""}
        if self.paper and "notes" in shown:
            for note in shown["notes"]:
                footnotes.setdefault(note, _mark(len(footnotes) - 1))
            marks = (footnotes[note] for note in shown["notes"])
            body.iloc[:, 0] += [rf"\textsuperscript{{{mark}}}" if mark else "" for mark in marks]
        notes = [f"{mark}: {text}." for text, mark in footnotes.items() if mark]
        notes.insert(0, self.paper_note or self.note)
        # LaTeX numbers its own tables.
        title = re.sub(r"^(Table \d+): (.*)", r"\2 (\1 of the paper)", self.title)
        text = body.to_latex(
            index=False,
            column_format="".join("r" if numeric[name] else "l" for name in chosen),
            caption=_latex(f"{title}. {' '.join(notes)}"),
            label=f"tab:{self.name}",
        )
        text = text.replace(r"\begin{tabular}", _FIT + r"{\begin{tabular}")
        text = text.replace(r"\end{tabular}", r"\end{tabular}}")
        return "% needs booktabs and graphicx\n" + text

    def save(self, folder: Path) -> list[Path]:
        """Write all three files; the same rows give the same bytes."""
        stem = re.sub(r"[^\w.-]+", "-", self.name)[:100]  # a data set may have any name
        if stem != self.name:  # two names must not share a file
            stem += "-" + hashlib.sha256(self.name.encode()).hexdigest()[:8]
        paths = [folder / f"{stem}.{ending}" for ending in ("csv", "md", "tex")]
        for path, text in zip(paths, (self.csv(), self.markdown(), self.latex()), strict=True):
            write_atomically(path, text.encode())
        return paths


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the columns in the order in which they first appear, without empty ones."""
    names = dict.fromkeys(name for row in rows for name in row)
    used = [name for name in names if any(row.get(name) is not None for row in rows)]
    return pd.DataFrame({name: [row.get(name) for row in rows] for name in used}, dtype=object)


def _shown(value: Any, decimals: int) -> str:
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:,.{decimals}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _mark(number: int) -> str:
    """Return the mark of a footnote: a, b, ..., z, aa, ab, ..."""
    letter = chr(ord("a") + number % 26)
    return letter if number < 26 else _mark(number // 26 - 1) + letter


def _latex(text: str) -> str:
    """Escape text for LaTeX; a range gets its dash."""
    return text.translate(_LATEX).replace(" - ", "--")


def _plain(text: str) -> str:
    """Escape text for a Markdown cell: users choose the names of runs and models."""
    return " ".join(text.split()).translate(_MARKDOWN)
