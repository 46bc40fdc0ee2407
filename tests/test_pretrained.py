"""The models that come with the package: the published weights, read by name, never written to."""

import json
import re
from pathlib import Path

import pytest
import torch
from commands import answer, drawbench, failed, snapshot, succeeded

from drawbench import (
    Problem,
    Scene,
    fresh,
    load_pretrained,
    load_run,
    load_source,
    predict,
    pretrained,
    score,
)
from drawbench.data import sources_root
from drawbench.evaluation import paired
from drawbench.runs import BEST, Run

PUBLISHED = Path(__file__).parent.parent / "results" / "published"
MODELS = pretrained.models()
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder, and check that the package is as it was."""
    monkeypatch.chdir(tmp_path)
    before = snapshot(pretrained.HOME)
    yield tmp_path
    caches = {path for path in snapshot(pretrained.HOME).keys() - before.keys() if "cache" in path}
    assert {k: v for k, v in snapshot(pretrained.HOME).items() if k not in caches} == before


@every_model
def test_the_result_is_the_published_one_in_half_precision(name):
    """The published folder has no weights of its own: they are committed once."""
    original = Run.open(PUBLISHED / MODELS[name]["run"])
    assert not (original.folder / BEST).exists()
    tensors, facts = Run.open(Path(name)).load_best()
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    shapes = [tensor.numel() for tensor in tensors.values()]
    result, full = Run.open(Path(name)).result(), original.result()
    ours, theirs = (paired.load(run.folder).losses for run in (Run.open(Path(name)), original))
    assert (ours == theirs).all()
    assert sum(shapes) == result["parameters"]
    assert len(facts["size"]) == 3
    assert (result["weights"], result["n"]) == ("float16", full["n"])
    assert result["test_sha256"] == full["test_sha256"]
    assert result["value"] == pytest.approx(full["value"], abs=0.05)


@every_model
def test_the_card_says_what_was_measured(name):
    card = (pretrained.HOME / name / "README.md").read_text()
    result = Run.open(Path(name)).result()
    assert f"**{result['value']:.2f}" in card
    assert "float16; the numbers are those of these weights" in card
    assert f"results/published/{MODELS[name]['run']}" in card
    assert re.search(r"^license: \"?mit", card, re.MULTILINE)


@torch.no_grad()
def test_the_classifier_finds_digits_in_clutter():
    try:
        source, limit = load_source("mnist", sources_root(), download=False), 8
    except Problem:
        source, limit = load_source("digits", sources_root()), 60  # it never saw such digits
    scenes = fresh(source.splits["test"], Scene(), torch.arange(200), 0, "check")
    model = load_pretrained("glimpse-8").model
    assert score(predict(model, scenes.images), scenes.labels[:, 0].numpy()).percent < limit


@torch.no_grad()
def test_the_generator_draws_digits():
    """The classifier is sure of most of what the generator draws, set on an empty canvas."""
    generator = load_pretrained("draw-mnist").model
    noise = torch.randn(32, 20, 100, generator=torch.Generator().manual_seed(0))
    canvas = torch.zeros(32, 1, 100, 100)
    canvas[:, :, 36:64, 36:64] = generator.sample(noise).mean
    logits = load_pretrained("glimpse-8").model(canvas).logits[:, -1]
    assert (logits.softmax(1).max(1).values > 0.9).float().mean() > 0.6
    assert len(set(logits.argmax(1).tolist())) >= 6


def test_models_are_listed():
    listed = answer("models")["models"]
    assert [row["name"] for row in listed] == list(MODELS)
    assert all(Path(row["card"]).is_file() for row in listed)
    text = succeeded(drawbench("models")).stdout
    assert all(f"{row['value']:.2f}" in text for row in listed)


def test_a_name_stands_for_a_run(elsewhere):
    figures = answer("generate", "--from", "draw-mnist", "--pictures", 2)["figures"]
    assert all(Path(path).parent == Path("results/figures/draw-mnist") for path in figures)
    assert all((elsewhere / path).is_file() for path in figures)
    compared = answer("compare", "glimpse-8", PUBLISHED / "eye-8-more")
    assert compared["values"][0] == Run.open(Path("glimpse-8")).result()["value"]
    answer("export", "glimpse-8", "mine")
    result = json.loads(succeeded(drawbench("resume", "glimpse-8", "--json")).stdout)
    assert result["model"] == "eye"


def test_a_run_folder_goes_before_a_name(elsewhere):
    answer("export", "draw-mnist", "glimpse-8")
    assert load_run("glimpse-8").config.task == "generate"
    assert load_pretrained("glimpse-8").config.task == "classify"


def test_an_unknown_name_gets_a_hint(elsewhere):
    failed(drawbench("plot", "glimpse-9"), "no run folder glimpse-9", "'glimpse-8'")
    with pytest.raises(Problem, match="choose one of glimpse-8"):
        load_pretrained("resnet")
