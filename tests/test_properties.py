"""Laws that hold across modules, with Hypothesis looking for exceptions: how the work is divided
never changes its result.
"""

import json
import os
import shlex
import subprocess
import sys
from collections import ChainMap
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import click
import example_runs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_distributed import in_each

from drawbench import config, models, records, streams, tables
from drawbench.cli import cli, experiment
from drawbench.data import digits as sources
from drawbench.data import making, pixels, scenes
from drawbench.data.batch import Batch
from drawbench.data.cluttered import FreshScenes
from drawbench.data.scenes import Scene
from drawbench.evaluation import bounds, error_rate

ROOT = Path(__file__).parent.parent
few = settings(max_examples=12, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def digits() -> sources.Source:
    return sources.load("digits", Path("unused"))


def cuts(total: int) -> st.SearchStrategy[list[int]]:
    """Return sizes of pieces that add to a total."""
    marks = st.sets(st.integers(1, total - 1), max_size=6)
    return marks.map(lambda cuts: [b - a for a, b in pairwise([0, *sorted(cuts), total])])


# ------------------------------------------------------ batches and processes, and what is measured

IMAGES = 23


@pytest.fixture(scope="module")
def measured(digits):
    """Two small networks, what each is measured on, and its measurements one image at a time."""
    index = torch.arange(IMAGES)
    part = digits.splits["test"]
    rendered = scenes.fresh(part, Scene(canvas=30, clutter=2), index, 0, "properties")
    pictures = Batch(pixels.binarise(part.images[:IMAGES, None], index, 0, "properties"))
    with streams.seeded(0, "properties"):
        classifier = models.GlimpseClassifier(models.GaussianGlimpse(4), glimpses=3, hidden=6)
        generator = models.Draw(28, 28, steps=3, hidden=6, latent=3)
    labels = rendered.labels[:, 0].numpy()
    alone = SimpleNamespace(
        score=error_rate.score(error_rate.predict(classifier, rendered.images, batch=1), labels),
        bound=bounds.bound(generator, pictures, samples=2, batch=1),
        weighted=bounds.importance_weighted(generator, pictures, samples=3, batch=1),
    )
    facts = {"images": rendered.images, "labels": labels, "pictures": pictures, "alone": alone}
    return SimpleNamespace(classifier=classifier, generator=generator, **facts)


@given(batch=st.integers(1, 60), processes=st.integers(1, 3))
@few
def test_batches_and_processes_change_no_measurement(measured, batch, processes):
    """Counts are the same. Bounds are the same to 1e-5 of their size: float32 has 24 bits, 6e-8,
    and a matrix product of another height sums in another order; over three steps and the sigmoid
    that has cost up to some 1e-6 here.
    """
    model, pictures, alone = measured.generator, measured.pictures, measured.alone

    def measure():
        probabilities = error_rate.predict(measured.classifier, measured.images, batch=batch)
        return (
            error_rate.score(probabilities, measured.labels),
            bounds.bound(model, pictures, samples=2, batch=batch),
            bounds.importance_weighted(model, pictures, samples=3, batch=batch),
        )

    for score, bound, weighted in in_each(processes, measure, pytest.MonkeyPatch()):
        assert np.array_equal(score.confusion, alone.score.confusion)
        assert np.array_equal(score.errors_after, alone.score.errors_after)
        np.testing.assert_allclose(bound.per_image, alone.bound.per_image, rtol=1e-5)
        np.testing.assert_allclose(bound.kl, alone.bound.kl, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(weighted.per_image, alone.weighted.per_image, rtol=1e-5)


@given(order=st.permutations(range(IMAGES)), count=st.integers(1, IMAGES))
@few
def test_a_bound_depends_on_its_image_alone(measured, order, count):
    chosen = torch.tensor(order[:count])
    some = bounds.bound(measured.generator, measured.pictures, index=chosen, samples=2, batch=7)
    whole = measured.alone.bound.per_image
    np.testing.assert_allclose(some.per_image, whole[chosen.numpy()], rtol=1e-5)


# ----------------------------------------------------------------------- options and configurations

BOTH = {"glimpses": 3, "hidden": 64, "seed": 5}
CLASSIFY = {"canvas": 60, "clutter": 4, "model": "affine", "steps": 70, "learning_rate": 0.01}
GENERATE = {"latent": 7, "pixels": "threshold", "epochs": 2.0, "window_clip": 2.0, "batch": 9}
GIVEN = {"classify": BOTH | CLASSIFY, "generate": BOTH | GENERATE}


def parsed(name: str, words: list[str]):
    """Return the configuration that a command line asks for, without running the command."""
    command = cli.get_command(click.Context(cli), name)
    context = command.make_context(name, words)
    kind = config.TASKS[name]
    settings = config.settings(kind).keys() & context.params.keys()
    given = {key: context.params[key] for key in settings if context.params[key] is not None}
    recipe = context.params["recipe"] or ("mnist" if name == "generate" else None)
    return experiment.configure(kind, recipe, given)


@given(st.data())
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_the_order_of_options_does_not_matter(data):
    name = data.draw(st.sampled_from(sorted(GIVEN)))
    chosen = data.draw(st.dictionaries(st.sampled_from(sorted(GIVEN[name])), st.none(), min_size=1))
    pairs = [(f"--{key.replace('_', '-')}", str(GIVEN[name][key])) for key in chosen]
    pairs += [("--json",), ("--force",)]
    orders = [data.draw(st.permutations(pairs)) for _ in range(2)]
    first, second = (parsed(name, [word for pair in order for word in pair]) for order in orders)
    assert first == second
    sections = config.to_dict(first).values()
    values = dict(ChainMap(*(part for part in sections if isinstance(part, dict))))
    assert {key: values[key] for key in chosen} == {key: GIVEN[name][key] for key in chosen}


# ------------------------------------------------------------------------------------------- tables


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> list[Path]:
    """Runs that each have a row of their own."""
    place = tmp_path_factory.mktemp("runs")
    results = [
        {},
        {"glimpses": 4},
        {"dataset": "cluttered-60x60-4-mnist"},
        {"model": "conv6"},
        {"task": "generate"},
        {"task": "generate", "dataset": "mnist-dynamic"},
        {"task": "generate", "dataset": "mnist2-fixed"},
    ]
    folders = enumerate(results)
    return [example_runs.finished_run(place / f"run-{n}", result) for n, result in folders]


@given(chosen=st.sets(st.integers(0, 6)), backwards=st.booleans())
@few
def test_tables_of_any_runs_have_exactly_their_rows(finished, chosen, backwards):
    places = [finished[number] for number in sorted(chosen, reverse=backwards)]
    messages: list[str] = []
    runs = records.find(places, messages.append)
    rows: dict[str, list[str]] = {}
    for table in tables.make(runs):
        for row in table.rows:
            if row.get("whose", "ours") == "ours":
                rows.setdefault(table.name, []).append(row["runs or source"])
    assert not messages and sorted(record.folder for record in runs) == sorted(places)
    assert sorted(rows.get("cost", [])) == sorted(record.pointer for record in runs)
    expected: dict[str, list[str]] = {}
    for record in runs:
        dataset = record.result["dataset"]
        names = {
            "cluttered-100x100-8-mnist": "table1_cluttered",
            "mnist-static": "table2_binarised_mnist",
            "mnist2-fixed": "two_digits_fixed",
        }
        kind = "classification" if record.result["task"] == "classify" else "likelihood"
        expected.setdefault(names.get(dataset, f"{kind}_{dataset}"), []).append(record.pointer)
    results = {
        name: sorted(held)
        for name, held in rows.items()
        if name in expected or name.startswith(("table1", "table2", "two", "class", "like"))
    }
    assert results == {name: sorted(held) for name, held in expected.items()}


# ---------------------------------------------------------------------------------- the same pixels


@pytest.fixture
def two_threads():
    """Run with one thread, then with two."""
    yield lambda work: [_with_threads(number, work) for number in (1, 2)]
    torch.set_num_threads(1)


def _with_threads(number: int, work):
    torch.set_num_threads(number)
    try:
        return work()
    finally:
        torch.set_num_threads(1)


def test_a_data_set_is_the_same_bytes_with_any_threads_and_chunks(
    digits, tmp_path, two_threads, monkeypatch
):
    numbers = iter(range(9))

    def make() -> dict:
        folder, counts = (
            tmp_path / f"set-{next(numbers)}",
            {"train": 90, "validation": 5, "test": 7},
        )
        card = making.write(folder, Scene(canvas=40, clutter=3), digits, "cluttered", 7, counts)
        return card["content_sha256"]

    hashes = two_threads(make)
    monkeypatch.setattr(making, "CHUNK_BYTES", 300_000)
    assert [*hashes, *two_threads(make)] == [hashes[0]] * 4


@given(
    sizes=cuts(70),
    first=st.integers(0, 3000),
    threads=st.integers(1, 2),
    distortion=st.sampled_from([0.0, 0.7]),
)
@few
def test_fresh_training_scenes_are_the_same_in_any_batches(
    digits, sizes, first, threads, distortion
):
    part, scene = digits.splits["train"], Scene(canvas=36, clutter=2)
    train = FreshScenes(part, scene, 3, distortion=distortion)
    whole = train.batch(first, sum(sizes))
    starts = np.cumsum([first, *sizes])[:-1]

    def again() -> list[Batch]:
        return [train.batch(int(start), size) for start, size in zip(starts, sizes, strict=True)]

    parts = _with_threads(threads, again)
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)


@given(
    sizes=cuts(40),
    chunk=st.integers(1, 4000),
    threads=st.integers(1, 2),
    seed=st.integers(0, 2**62),
)
@few
def test_binarisation_and_noise_are_the_same_in_any_batches(digits, sizes, chunk, threads, seed):
    index = torch.arange(100, 100 + sum(sizes))
    images = digits.splits["train"].images[: len(index)]
    binary, noise = pixels.binarise(images, index, seed, "x"), bounds.noise(index, 3, 5, seed, "x")

    def again() -> tuple[torch.Tensor, torch.Tensor]:
        pairs = list(zip(images.split(sizes), index.split(sizes), strict=True))
        return (
            torch.cat([pixels.binarise(some, numbers, seed, "x") for some, numbers in pairs]),
            torch.cat([bounds.noise(numbers, 3, 5, seed, "x") for _, numbers in pairs]),
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "CHUNK", chunk)
        parts = _with_threads(threads, again)
    assert torch.equal(parts[0], binary)
    assert torch.equal(parts[1], noise)


# -------------------------------------------------------------------------- two processes, for real


@pytest.mark.slow
def test_evaluate_counts_the_same_in_two_processes_with_another_batch(tmp_path):
    main = [sys.executable, "-c", "from drawbench.cli import main; main()"]
    place = ["--datasets", str(tmp_path / "datasets"), "--json"]
    words = shlex.split(
        "--source digits --canvas 28 --clutter 1 --glimpses 2 --patch 4 --hidden 8 "
        "--batch 16 --steps 20 --threads 1 --run one"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    options = {"check": True, "capture_output": True, "cwd": tmp_path, "env": environment}
    subprocess.run([*main, "classify", *words, "--runs", str(tmp_path), *place], **options)
    said = []
    for more in (["--batch", "7"], ["--batch", "250", "--processes", "2"]):
        command = [*main, "evaluate", str(tmp_path / "one"), *more, *place]
        said.append(json.loads(subprocess.run(command, **options).stdout))
    assert said[0] == said[1]
