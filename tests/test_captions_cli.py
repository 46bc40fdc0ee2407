"""Captions from the command line: trained, measured, resumed, drawn from, and refused."""

import json
import shutil
from pathlib import Path

import commands
import pytest
import torch
from commands import content, drawbench, failed, flags, succeeded, tiny
from PIL import Image

from drawbench import config as configs
from drawbench import records, runs, tasks
from drawbench.reporters import Reporter

WORDS = {"dataset": "captions", "words": 4, "alignment": 6, "read_patch": 4, "write_patch": 4}
WORDS |= {"checkpoint_every": 2, "batch": 10}
PAIR = "the digit 3 is at the top of the digit 7 ."


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, datasets) -> Path:
    """A finished run on captions, with its figures."""
    folder = tmp_path_factory.mktemp("captions")
    places = flags(runs=folder, run="tiny", datasets=datasets)
    succeeded(drawbench("generate", *tiny(commands.GENERATOR, **WORDS, figures=True), *places))
    return folder / "tiny"


def test_a_run_is_measured_seen_held_out_wrong_and_read(drawn):
    result = json.loads((drawn / "result.json").read_text())
    records.check_result(result)
    assert result["attention"] == "both"
    assert result["model"] == "aligndraw" and result["dataset"] == "captions-digits-fixed"
    assert result["n"] == result["held_out"]["n"] == result["wrong_condition"]["n"] == 400
    # Images obey their captions, as far as the reader knows these digits; noise does not.
    assert min(result[name]["value"] for name in ("real_read", "held_out_real_read")) > 30
    assert result["read"]["value"] < 20


def test_its_figures_show_captions(drawn):
    figures = {path.name for path in (drawn / "figures").iterdir()}
    wanted = {"samples.png", "samples.gif", "attended_words.png", "held_out_samples.png"}
    assert wanted <= figures
    with Image.open(drawn / "figures" / "samples.gif") as animation:
        assert animation.n_frames == 3  # two steps, and the last without windows


def test_a_caption_is_drawn_from_by_words_or_numerals(drawn, tmp_path):
    words = ["generate", "--from", drawn, "--pictures", 3, "--seed", 2, "--out"]
    succeeded(drawbench(*words, tmp_path / "a", "--caption", PAIR))
    said = "The digit three is at the top of the digit seven"
    succeeded(drawbench(*words, tmp_path / "b", "--caption", said))
    one, other = content(tmp_path / "a"), content(tmp_path / "b")
    assert one == other
    stem = "the-digit-three-is-at-the-top-of-the-digit-seven-seed2"
    assert {f"samples-{stem}.png", f"samples-{stem}.gif"} < one.keys()


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("the digit three is under the digit seven", ("unknown word 'under'", "the digit is on")),
        ("", ("the caption is empty",)),
        (f"{PAIR} {PAIR}", ("23 words", "12")),
        (None, ("draws from captions: add --caption 'the digit three",)),
    ],
)
def test_a_caption_that_cannot_be_drawn_from_is_one_sentence(drawn, tmp_path, caption, words):
    before = commands.snapshot(drawn)
    failed(drawbench("generate", "--from", drawn, *flags(caption=caption)), *words)
    assert commands.snapshot(drawn) == before


def test_captions_go_with_a_model_that_takes_them(generated, place):
    failed(drawbench("generate", "--caption", PAIR), "goes with --from RUN", status=2)
    run = generated[0]
    failed(drawbench("generate", "--from", run, "--caption", PAIR), "has learned no captions")
    base = {key: value for key, value in WORDS.items() if key not in ("words", "alignment")}
    words = tiny(commands.GENERATOR, **base, model="draw")
    failed(drawbench("generate", *words, *place), "have captions, but draw takes none")
    words = tiny(commands.GENERATOR, model="aligndraw", pixels="fixed")
    failed(drawbench("generate", *words, *place), "aligndraw draws from captions, but the images")


def test_a_resumed_run_is_bit_identical(drawn, datasets, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(drawn, copy)
    (copy / "result.json").unlink()
    (copy / runs.LAST).unlink()  # what is left is the state of step 2
    succeeded(drawbench("resume", copy, *flags(datasets=datasets)))
    assert commands.metrics(copy) == commands.metrics(drawn)
    weights, expected = (runs.Run.open(run).load_best()[0] for run in (copy, drawn))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    one, other = (json.loads((run / "result.json").read_text()) for run in (copy, drawn))
    same = one.keys() - {"train_seconds", "command", "sha256"}
    assert {key: one[key] for key in same} == {key: other[key] for key in same}


def test_shares_of_a_batch_have_its_gradient(drawn, datasets):
    """What processes that share an update rely on."""
    config = configs.from_dict(json.loads((drawn / "config.json").read_text()))
    roots = {"sources_root": Path("unused"), "datasets_root": datasets}
    task = tasks.create(config, **roots, reporter=Reporter())

    def gradient(first: int, count: int) -> torch.Tensor:
        task.model.zero_grad()
        task.loss(task.batch(first, count))[0].backward()
        return torch.cat([parameter.grad.flatten() for parameter in task.model.parameters()])

    parts = 0.4 * gradient(30, 4) + 0.6 * gradient(34, 6)
    torch.testing.assert_close(parts, gradient(30, 10), rtol=1e-4, atol=1e-5)
