"""Finished runs as tables, figures and the page read them: config, result, environment, metrics,
curves, test.npz, pictures.
"""

import contextlib
import functools
import io
import json
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import made_runs
import numpy as np
from hypothesis import strategies as st
from matplotlib.figure import Figure

from drawbench import records, report, tables
from drawbench.errors import Problem
from drawbench.evaluation import paired
from drawbench.figures import results
from drawbench.files import hashed

from .damage import DAMAGES, NAMES, NODES, altered, as_json
from .engine import Kind, check_sentence
from .idx import put_badly
from .npz import array_bytes, headed, packed

JSON = ("config.json", "result.json", "environment.json")
TABLES = ("metrics.csv", "error_against_clutter.csv")
PICTURES = ("glimpses.gif", "glimpses_1.png")


class Case(NamedTuple):
    run: str
    file: str
    how: str
    with_what: object
    drawn: bool = False


ROWS = [
    "step,error",
    "clutter,error,low,high,n",
    "1,2,3",
    "1e999,nan,inf,-inf,0",
    ",,,,",
    '"',
    "a\x00b",
    "9" * 400 + ",1,1,1,1",
    "1,1,1,1,1,1,1,1",
    "-5,-1,-1,-1,-1",
    "0.5,x,<b>,$,\n",
    "1e300,1e300,1e300,1e300,1",
]
LOSSES = ["<f4", "|u1", "<f8", "<i8", "|O", "<U5", "<c8", "<M8[s]", "|b1", "|V3"]
RUN = st.sampled_from(["classifier", "generator"])
ANY = st.sampled_from([*JSON, *TABLES, "test.npz", *(f"figures/{name}" for name in PICTURES)])
DRAWN = st.integers(0, 59).map(lambda number: number == 7)
CASES = st.one_of(
    st.builds(Case, RUN, st.sampled_from(JSON), st.just("nodes"), NODES, DRAWN),
    st.builds(Case, RUN, st.sampled_from(JSON), st.just("nodes"), NODES, DRAWN),
    st.builds(Case, RUN, ANY, st.just("bytes"), DAMAGES, DRAWN),
    st.builds(
        Case,
        RUN,
        ANY,
        st.sampled_from(["missing", "folder", "loop", "pipe", "endless", "sparse"]),
        st.none(),
    ),
    st.builds(
        Case,
        RUN,
        st.sampled_from(TABLES),
        st.just("rows"),
        st.lists(st.sampled_from(ROWS), min_size=1, max_size=3),
        DRAWN,
    ),
    st.builds(
        Case,
        RUN,
        st.just("test.npz"),
        st.just("losses"),
        st.tuples(st.sampled_from(LOSSES), st.sampled_from([(0,), (3,), (2, 2), (1 << 40,), ()])),
    ),
    st.builds(Case, RUN, st.just("test.npz"), st.just("words"), st.sampled_from(NAMES[:-1])),
)


def prepare(kept: Path, patch) -> tuple[dict[str, dict[str, bytes]], Path]:
    folders = {}
    for name, result in {"classifier": {}, "generator": {"task": "generate"}}.items():
        folder = made_runs.made(kept / name, result, **({"source": "auto"} if result else {}))
        made_runs.curve(folder, "clutter", {0: 1.0, 8: 4.0})
        made_runs.film(folder, frames=2)
        made_runs.outcomes(folder, [0, 1, 0], metric=paired.BOUND if result else paired.ERROR)
        (folder / "metrics.csv").write_text(
            "step,validation_bound,validation_error\n10,95.5,9\n20,91.5,4\n"
        )
        made_runs.Image.new("L", (30, 20)).save(folder / "figures" / "glimpses_1.png")
        folders[name] = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
    return folders, kept / "classifier"


def attempt(ready: tuple[dict[str, dict[str, bytes]], Path], folder: Path, case: Case) -> None:
    files, good = dict(ready[0][case.run]), ready[1]
    place, content = folder / "runs" / "run", files[case.file]
    (place / "figures").mkdir(parents=True)
    for name, sound in files.items():
        if name != case.file:
            (place / name).write_bytes(sound)
    path, what = place / case.file, case.with_what
    if case.how == "nodes":
        text = as_json(altered(json.loads(content), what))  # type: ignore[arg-type]
        with contextlib.suppress(ValueError, RecursionError, TypeError):  # of what has no hash
            if case.file == "result.json":  # sealed again, or it would not get past its hash
                text = json.dumps(hashed(json.loads(text))).encode()
        path.write_bytes(text)
    elif case.how == "rows":
        lines = content.decode().splitlines()
        path.write_text("\n".join([*lines[:2], *what, *lines[2:]]))  # type: ignore[misc]
    elif case.how == "losses":
        dtype, shape = what  # type: ignore[misc]
        path.write_bytes(
            with_member(
                content,
                "losses.npy",
                headed(
                    f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n",
                    bytes(9),
                ),
            )
        )
    elif case.how == "words":
        path.write_bytes(with_member(content, "metric.npy", array_bytes(np.array(str(what)))))
    else:
        put_badly(path, case.how, what, content)
    said: list[str] = []
    found = records.find([folder / "runs", good], said.append)
    for table in tables.make(found):
        table.save(folder / "tables")
    if case.drawn:
        for drawn in results.make(found, said.append):
            drawn.figure.savefig(io.BytesIO(), format="png")
    else:
        report.films(found, said.append)
    for sentence in said:
        check_sentence(sentence)
    assert (
        len(found) + sum(word.startswith("Left out: ") and "run" in word for word in said) >= 2
    ), "a run is used, or it is said why not"
    if said:
        raise Problem(said[0])  # a run or a table of it is left out
    if case.file == "test.npz":
        paired.compare(paired.load(place), paired.load(place))


def with_member(content: bytes, name: str, member: bytes) -> bytes:
    """An npz file with one array in another's place."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return packed(
            [(one, member if one == name else archive.read(one)) for one in archive.namelist()]
        )


KIND = Kind("records", 12, CASES, prepare, attempt)


# ---------------------------------------------------------------------- names that try to be script

TRICKS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' onclick='x",
    "javascript:alert(1)",
    "</style><style>*{}</style>",
    "<!--",
    "]]>",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "<svg/onload=alert(1)>",
    "&lt;script&gt;",
    "&#60;b&#62;",
    "</title>",
    "</td></tr></table>",
    "<base href=//x>",
    '<meta http-equiv="refresh" content="0">',
    "\u2028",
    "\x00",
    "<a href=//x>",
    "${x}",
    "`x`",
    "<b",
]
WORD = st.lists(st.sampled_from(TRICKS) | st.text(max_size=5), min_size=1, max_size=3).map("".join)
FIELDS = (
    "model",
    "dataset",
    "command",
    "clutter",
    "commit",
    "processor",
    "threads",
    "torch",
    "start",
    "folder",
    "pixels",
)
NAMED = st.fixed_dictionaries({}, optional={field: WORD for field in FIELDS}).filter(bool)


class Elements(HTMLParser):
    """Every element of a page with its attributes, but for the words in attributes that hold words,
    and the text of scripts.
    """

    FREE = ("id", "aria-labelledby", "aria-label", "alt", "src", "width", "height")

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append(
            (
                tag,
                *(
                    (name, None if name in self.FREE else value)
                    for name, value in attributes
                    if name != "class"
                ),
            )
        )
        assert all(
            (value or "").startswith("data:image/png;base64,")
            for name, value in attributes
            if name == "src"
        )
        self.inside = tag

    def handle_data(self, data):
        if self.inside in ("script", "style"):
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_comment(self, data):
        raise AssertionError(f"a comment from a name: {data!r}")


def prepare_page(kept: Path, patch) -> Elements:
    patch.setattr(
        results,
        "_errors",
        lambda rows: iter([results.Drawn("errors", "caption", Figure())]) if rows else iter(()),
    )
    patch.setattr(results.comparisons, "sheet", lambda path: Figure())
    patch.setattr(report, "_figure", functools.cache(lambda drawn: "data:image/png;base64,"))
    return Elements(_page(kept, {"model": "plain", "dataset": "plain", "folder": "plain"}))


def attempt_page(plain: Elements, folder: Path, names: dict[str, str]) -> None:
    page = _page(folder, {"model": "plain", "dataset": "plain", "folder": "plain"} | names)
    made = Elements(page)
    page.encode()
    assert made.scripts == plain.scripts, "the script and the style are ours, and no more"
    assert made.found == plain.found, (
        f"elements of another page: {set(made.found) ^ set(plain.found)}"
    )


def _page(place: Path, names: dict[str, str]) -> str:
    """The page of a run with hostile names among good ones."""
    word = (
        names["folder"]
        .replace("/", "|")
        .replace("\x00", "|")
        .encode()[:90]
        .decode("utf-8", "ignore")
        .strip(".")
        or "x"
    )
    folder = made_runs.made(
        place / "runs" / f"r{word}", {"value": 10.5, "low": 10.0, "high": 11.0}, seed=1
    )
    made_runs.film(folder, frames=2)
    fields = {
        name: names[name]
        for name in ("model", "dataset", "command", "clutter", "pixels")
        if name in names
    }
    made_runs.change(folder / "result.json", **fields)
    made_runs.change(
        folder / "environment.json",
        **{
            name: names[name]
            for name in ("commit", "processor", "threads", "torch")
            if name in names
        },
    )
    settings = json.loads((folder / "config.json").read_text())
    settings["training"]["start"] = names.get("start", "plain")
    (folder / "config.json").write_text(json.dumps(settings))
    return report.page(records.find([place / "runs"], lambda text: None), lambda text: None)


PAGE = Kind("page", 4, NAMED, prepare_page, attempt_page)
