"""Configurations: ``config.json`` of a run folder, and recipes."""

import json
from pathlib import Path
from typing import NamedTuple

import click
from hypothesis import strategies as st

from drawbench import config
from drawbench.cli import options
from drawbench.errors import Problem
from drawbench.runs import Run

from .damage import DAMAGES, NODES, Bytes, Node, altered, as_json, hurt
from .engine import Kind
from .idx import put_badly

VALID = [config.to_dict(kind()) for kind in config.TASKS.values()]
KINDS = [config.MakeData, config.Classify, config.Generate]


class Json(NamedTuple):
    which: int
    how: str
    with_what: object


class Toml(NamedTuple):
    """A recipe of the package with lines added after some line, and bytes damaged."""

    name: str
    kind: int
    after: int
    lines: list[str]
    damages: list[Bytes]


KEYS = [
    "glimpses",
    "model",
    "task",
    "learning_rate",
    "steps",
    "epochs",
    "seed",
    "source",
    "batch",
    "start",
    "nothing",
    '"ü\\u0000"',
    "a.b.c",
    "model.glimpses",
]
WORDS = [
    "8",
    "-1",
    "0",
    "true",
    "nan",
    "-inf",
    "1e400",
    "9" * 30,
    "9" * 5000,
    "0x" + "f" * 5000,
    '"draw"',
    "'../../x'",
    '"\\ud800"',
    '""',
    "[]",
    "{}",
    "1979-05-27",
    "07:32:00",
    "[[[[[[[]]]]]]]",
    "{a = {b = 1}}",
    "0.5",
    "1_000",
    "__import__('os')",
    '"""\n"""',
    '"' + "x" * 2000 + '"',
    "[" * 900 + "]" * 900,
]
LINES = st.one_of(
    st.builds("{} = {}".format, st.sampled_from(KEYS), st.sampled_from(WORDS)),
    st.sampled_from(
        [
            "[model]",
            "[data]",
            "[training]",
            "[[model]]",
            "[task]",
            "[" + "a." * 400 + "a]",
            "[model.model]",
            "a." * 2000 + "a = 1",
            "=",
            "#",
        ]
    ),
    st.text(max_size=12),
)
CASES = st.one_of(
    st.builds(Json, st.integers(0, 3), st.just("nodes"), NODES),
    st.builds(Json, st.integers(0, 3), st.just("bytes"), DAMAGES),
    st.builds(
        Json,
        st.integers(0, 3),
        st.just("place"),
        st.sampled_from(["missing", "folder", "loop", "pipe", "endless", "sparse"]),
    ),
    st.builds(
        Toml,
        st.sampled_from(config.recipes()),
        st.integers(0, 2),
        st.integers(0, 30),
        st.lists(LINES, max_size=3),
        st.lists(DAMAGES, max_size=1).map(lambda few: few[0] if few else []),
    ),
)


def prepare(kept: Path, patch) -> dict[str, str]:
    folder = Path(config.__file__).parent / "recipes"
    return {name: (folder / f"{name}.toml").read_text() for name in config.recipes()}


def attempt(recipes: dict[str, str], folder: Path, case: Json | Toml) -> None:
    made = _from_json(folder, case) if isinstance(case, Json) else _from_toml(recipes, folder, case)
    text = json.dumps(config.to_dict(made), allow_nan=False)
    assert config.from_dict(json.loads(text)) == made, (
        "what is accepted can be written and read again"
    )


def _from_json(folder: Path, case: Json) -> object:
    valid, run = VALID[case.which], folder / "run"
    run.mkdir()
    if case.how == "place":
        put_badly(run / "config.json", str(case.with_what), None, as_json(valid))
    elif case.how == "nodes":
        nodes: list[Node] = case.with_what  # type: ignore[assignment]
        (run / "config.json").write_bytes(as_json(altered(valid, nodes)))
    else:
        (run / "config.json").write_bytes(hurt(as_json(valid), case.with_what))  # type: ignore[arg-type]
    return Run.open(run).config


def _from_toml(recipes: dict[str, str], folder: Path, case: Toml) -> object:
    lines = recipes[case.name].splitlines()
    at = case.after % (len(lines) + 1)
    text = "\n".join([*lines[:at], *case.lines, *lines[at:]])
    (folder / "recipe.toml").write_bytes(hurt(text.encode("utf-8", "replace"), case.damages))
    try:
        return options.configure(KINDS[case.kind], str(folder / "recipe.toml"), {})
    except click.UsageError as error:  # which the command line prints as it does a Problem
        raise Problem(error.message) from error


KIND = Kind("settings", 14, CASES, prepare, attempt)
