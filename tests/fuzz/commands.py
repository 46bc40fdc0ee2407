"""The command line itself: options of click's own tree with values of every kind, in any order,
stopped before any long work.
"""

import functools
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import click
import made_runs
import torch
from click.testing import CliRunner
from hypothesis import strategies as st

from drawbench import bench, config, distributed, runs, training
from drawbench.cli import cli
from drawbench.data import network, sources, store
from drawbench.data.scenes import Scene
from drawbench.errors import Problem
from drawbench.evaluation import bounds
from drawbench.figures import results
from drawbench.figures import run as run_figures
from drawbench.tasks import classify, generate

from .engine import LONGEST, Kind

SMALL = {"glimpses": 2, "hidden": 3, "steps": 4, "source": "digits"}
SCENE = Scene(canvas=28, clutter=1)
RUNS = (
    "runs/classifier",
    "runs/generator",
    "runs/table",
    "runs/empty",
    "runs/nothing",
    "file",
    "",
    "runs",
    "ü",
    "-",
    "runs/classifier/config.json",
)


class Case(NamedTuple):
    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]


class Stopped(Exception):
    """The command came as far as the work."""


# ----------------------------------------------------------------------------------------- the tree


def _commands(
    group: click.Group, words: tuple[str, ...] = ()
) -> dict[tuple[str, ...], click.Command]:
    """All commands by the words that call them."""
    context, found = click.Context(group), {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found |= (
            _commands(command, (*words, name))
            if isinstance(command, click.Group)
            else {(*words, name): command}
        )
    return found


COMMANDS = _commands(cli)  # type: ignore[arg-type]
WHOLE = st.sampled_from(
    [
        "1",
        "2",
        "3",
        "0",
        "-1",
        "28",
        "40",
        str(2**31),
        str(2**63),
        str(10**30),
        "9" * 5000,
        "1e3",
        "0x10",
        "",
        " 4",
        "٣",
        "1.5",
        "nan",
    ]
)
REAL = st.sampled_from(
    ["0.5", "1", "0", "-1", "nan", "inf", "-inf", "1e400", "1e-300", "x", "", "1_0"]
)
NUMBERS = st.sampled_from(
    [
        "1,2",
        "0..8..4",
        "8",
        "..",
        "3..1",
        "0..9999999999",
        "1..2..3..4",
        "x",
        "",
        "-1",
        "1,,2",
        str(10**30),
        "0..8..0",
    ]
)
PATHS = st.sampled_from(
    [
        *RUNS,
        "new",
        "new/deep",
        "a" * 300,
        "runs/../runs/table",
        "file/below",
        "x\udcff",
        "<script>",
        "$x$",
        "/dev/null",
        "mine.png",
        ".",
    ]
)
TEXT = st.one_of(
    st.sampled_from(
        [
            "",
            "x",
            "a:b",
            "json:loads",
            "os:getcwd",
            "no.such:thing",
            "::",
            "../x",
            "a/b",
            ".hidden",
            "con",
            "ü漢",
            "-x",
            "x" * 300,
            "paper-8",
            "mnist-20",
            "recipe.toml",
            "nul",
            "%s",
            "x\udcff",
            "a\nb",
        ]
    ),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=6),
)


def _value(kind: Any, name: str) -> st.SearchStrategy[str]:
    if isinstance(kind, click.Choice):
        return st.sampled_from(
            [*map(str, kind.choices), str(next(iter(kind.choices))).upper(), "", "none-such"]
        )
    if isinstance(kind, click.Path):
        return PATHS
    if kind.name.startswith("integer") or kind is click.INT:
        return WHOLE
    if kind.name.startswith("float"):
        return REAL
    if kind.name == "numbers":
        return NUMBERS
    if kind.name == "five numbers":
        return st.sampled_from(
            [
                "0,0,3,0,0",
                "1e30,0,0,0,0",
                "0,0,99999,0,0",
                "0,0,-99999,99999,99999",
                "nan,0,0,0,0",
                "1,2",
                "",
            ]
        )
    return PATHS | TEXT if name in ("start", "images", "weights") else TEXT


def _option(option: click.Parameter) -> st.SearchStrategy[tuple[str, ...]]:
    if isinstance(option, click.Argument):
        some = st.lists(
            _value(option.type, option.name or ""),
            min_size=1,
            max_size=2 if option.nargs == -1 else 1,
        )
        return some.map(tuple)
    words = st.sampled_from([*option.opts, *option.secondary_opts])
    if option.is_flag or option.count:  # type: ignore[attr-defined]
        return words.map(lambda word: (word,))
    value = _value(option.type, option.name or "")
    return st.one_of(
        st.tuples(words, value), st.tuples(words, value).map(lambda pair: (f"{pair[0]}={pair[1]}",))
    )


def _words(path: tuple[str, ...], command: click.Command) -> st.SearchStrategy[Case]:
    options = [
        option for option in command.params if option.name not in ("help", "debug", "processes")
    ]
    required = [option for option in options if isinstance(option, click.Argument)]
    sane = st.tuples(*(_option(option) for option in required))
    more = st.lists(st.sampled_from(options).flatmap(_option), max_size=4)
    strays = st.lists(
        st.sampled_from(
            ["--", "-", "--no-such", "--json", "--help", "-h", "--version", "-1", "--json=1"]
        ).map(lambda word: (word,)),
        max_size=1,
    )
    orders = (
        st.tuples(sane, more, strays)
        .map(lambda parts: [*parts[0], *parts[1], *parts[2]])
        .flatmap(st.permutations)
    )
    names = [
        f"DRAWBENCH_{'_'.join(path).upper().replace('-', '_')}_{(option.name or '').upper()}"
        for option in options
    ]
    environment = st.lists(
        st.tuples(
            st.sampled_from(names), WHOLE | REAL | TEXT.filter(lambda text: "\x00" not in text)
        ),
        max_size=1,
    ).map(tuple)
    return st.builds(
        lambda groups, settings: Case(
            (*path, *(word for group in groups for word in group)), settings
        ),
        orders,
        environment,
    )


CASES = st.one_of(
    st.sampled_from(sorted(COMMANDS)).flatmap(lambda path: _words(path, COMMANDS[path])),
    st.sampled_from(sorted(COMMANDS)).flatmap(lambda path: _words(path, COMMANDS[path])),
    st.lists(st.sampled_from([word for path in COMMANDS for word in path]) | TEXT, max_size=4).map(
        lambda words: Case(tuple(words), ())
    ),
)

# ------------------------------------------------------------------------------------- no long work


def _stop(*_: Any, **__: Any) -> None:
    raise Stopped


def prepare(kept: Path, patch) -> Path:
    template = kept / "template"
    for name, settings, size in (
        (
            "classifier",
            config.merge(config.Classify, {}, SMALL | {"canvas": 28, "clutter": 1, "patch": 3}),
            None,
        ),
        (
            "generator",
            config.merge(config.Generate, {}, SMALL | {"latent": 2, "pixels": "fixed"}),
            (1, 28, 28),
        ),
    ):
        run = runs.Run.create(template / "runs" / name, settings)
        model = classify.build(settings) if size is None else generate.build(settings, size)
        run.save_best(
            model.state_dict(), {"step": 4, **({} if size is None else {"size": list(size)})}
        )
        run.write_result(made_runs.CLASSIFIER if size is None else made_runs.GENERATOR)
        made_runs.outcomes(run.folder, [0, 1, 1])
    made_runs.made(template / "runs" / "table")
    (template / "runs" / "empty").mkdir()
    (template / "file").write_text("mine")
    (template / "recipe.toml").write_text('task = "classify"\n[model]\nglimpses = 3\n')
    made_runs.Image.new("RGB", (6, 5)).save(template / "mine.png")
    data = kept / "data"
    patch.setattr(sources, "_embedded_digits", functools.cache(sources._embedded_digits))
    store.write(
        data,
        SCENE,
        sources.load("digits", Path()),
        "cluttered",
        0,
        {"train": 3, "validation": 2, "test": 3},
    )
    patch.setattr(network, "answers", lambda urls: False)
    patch.delenv("DRAWBENCH_SOURCES", raising=False)
    patch.setattr(
        classify, "prepare_data", lambda settings, *_: classify.scene_of(settings) and data
    )
    patch.setattr(store, "write", _stop)
    for module, name in [
        (training.Trainer, "fit"),
        (training, "_steps_in"),
        (error_rate, "predict"),
        (bounds, "bound"),
        (bounds, "importance_weighted"),
        (bench, "measure"),
        (distributed, "launch"),
        (run_figures, "of_classifier"),
        (run_figures, "of_generator"),
        (run_figures, "of_drawings"),
    ]:
        patch.setattr(module, name, _stop)
    patch.setattr(results, "make", lambda *_: [])
    from drawbench import figures

    patch.setattr(figures, "attention_explained", _stop)
    return template


def attempt(template: Path, folder: Path, case: Case) -> None:
    shutil.copytree(template, folder, dirs_exist_ok=True)
    threads = torch.get_num_threads()
    try:
        done = CliRunner().invoke(
            cli, list(case.words), prog_name="drawbench", env=dict(case.environment)
        )
    finally:
        torch.set_num_threads(threads)
    if isinstance(done.exception, Stopped):
        return
    if not (done.exception is None or isinstance(done.exception, SystemExit)):
        raise done.exception
    assert (folder / "file").read_text() == "mine", "what is not ours is left alone"
    if done.exit_code == 0:
        if "--json" in case.words and done.stdout.startswith("{"):
            json.loads(done.stdout)
        return
    assert done.exit_code in (1, 2), f"status {done.exit_code}"
    sentences = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in done.output and len(sentences) <= 1, done.output[-2000:]
    assert len(sentences) == 1 or done.stderr.startswith("Usage:"), done.output[-2000:]
    assert done.stdout == "", f"a failure goes to standard error alone: {done.stdout[:300]!r}"
    assert len(done.stderr) < 4 * LONGEST + 6000, f"{len(done.stderr)} letters"
    raise Problem(sentences[0] if sentences else "usage")


KIND = Kind("commands", 16, CASES, prepare, attempt)
