"""``drawbench generate`` and what the other commands do with a generator's run."""

import json

import pytest
import torch
from PIL import Image
from test_cli import content, drawbench, failed, flags, succeeded

TINY = {"source": "digits", "glimpses": 2, "hidden": 8, "latent": 4, "batch": 20, "steps": 4}
TINY |= {"evaluate_every": 2, "validation_images": 20, "threads": 1, "pictures": 4}


def tiny(**changes) -> list[str]:
    return flags(
        **{name: value for name, value in {**TINY, **changes}.items() if value is not None}
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def place(home):
    return flags(sources=home / "sources", datasets=home / "datasets")


@pytest.fixture(scope="module")
def run(home, place):
    answer = succeeded(
        drawbench("generate", *tiny(), *place, "--runs", home / "runs", "--run", "one", "--json")
    )
    return home / "runs" / "one", json.loads(answer.stdout)


def test_a_run_is_complete_and_says_so_in_json(run):
    folder, result = run
    assert result["metric"] == "nll_bound_nats" and result["dataset"] == "digits-fixed"
    for name in (
        "config.json",
        "environment.json",
        "metrics.csv",
        "result.json",
        "best.safetensors",
        "last.safetensors",
    ):
        assert (folder / name).is_file()
    drawn = {path.name for path in (folder / "figures").iterdir()}
    assert {
        "learning_curve.png",
        "kl_over_training.png",
        "samples.png",
        "sample_steps.png",
        "samples.gif",
    } <= drawn
    assert {
        "reconstructions.png",
        "reconstructions.gif",
        "interpolations.png",
        "kl_per_step.png",
    } <= drawn
    assert all((folder / "figures" / name).stat().st_size <= 500_000 for name in drawn)
    with Image.open(folder / "figures" / "samples.gif") as film:
        assert film.n_frames >= 2


def test_evaluate_gives_the_committed_number_for_any_batch(run, place):
    folder, result = run
    before = content(folder)
    for batch in (7, 250):
        answer = json.loads(
            succeeded(drawbench("evaluate", folder, *place, "--batch", batch, "--json")).stdout
        )
        assert answer["value"] == pytest.approx(result["value"], rel=1e-6)
    assert content(folder) == before
    words = ["--samples", 3, "--images", 50, "--bound-samples", 2, "--json"]
    more = json.loads(succeeded(drawbench("evaluate", folder, *place, *words)).stdout)
    assert (more["iw_samples"], more["iw_images"], more["bound_samples"]) == (3, 50, 2)
    assert more["sampling_error"] > 0
    text = succeeded(drawbench("evaluate", folder, *place)).stdout
    assert f"{result['value']:.2f} nats" in text


def test_from_draws_other_pictures_and_leaves_the_run_alone(run, place, tmp_path):
    folder, _ = run
    before = content(folder)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        words = ["--from", folder, "--seed", seed, "--pictures", 4, "--out", tmp_path / name]
        succeeded(drawbench("generate", *words, *place))
    assert content(folder) == before
    assert content(tmp_path / "a") == content(tmp_path / "b") != content(tmp_path / "c")
    answer = json.loads(
        succeeded(
            drawbench(
                "generate",
                "--from",
                folder,
                "--pictures",
                4,
                "--out",
                tmp_path / "d",
                *place,
                "--json",
            )
        ).stdout
    )
    assert answer["metric"] == "nll_bound_nats" and len(answer["figures"]) == 6


def test_resume_and_plot_know_a_generator(run, place):
    folder, result = run
    before = content(folder)
    again = json.loads(succeeded(drawbench("resume", folder, *place, "--json")).stdout)
    assert again["value"] == result["value"]
    succeeded(drawbench("plot", folder, *place))
    after = content(folder)
    changed = {name for name in before if before[name] != after[name]}
    assert not {name for name in changed if not name.startswith("figures")}, changed


def test_attention_flags(home, place):
    answer = drawbench(
        "generate", *tiny(pictures=2), *place, "--runs", home / "runs", "--no-attention", "--json"
    )
    result = json.loads(succeeded(answer).stdout)
    assert result["attention"] == "none" and "no-attention" in result["run"]


def test_a_folder_of_pictures(home, place, tmp_path):
    for n in range(12):
        pixels = torch.randint(
            0, 256, (20, 24, 3), generator=torch.Generator().manual_seed(n), dtype=torch.uint8
        )
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels.numpy()).save(tmp_path / "photos" / f"{n:02}.png")
    words = [
        "--dataset",
        "folder",
        "--images",
        tmp_path / "photos",
        "--size",
        8,
        "--runs",
        home / "runs",
    ]
    answer = drawbench(
        "generate", *tiny(source=None, batch=4, pictures=1), *place, *words, "--json"
    )
    result = json.loads(succeeded(answer).stdout)
    assert result["image"] == "3x8x8" and result["entropy_floor"] < result["value"]
    succeeded(drawbench("plot", result["run"], *place))
    # Another picture in the test part is noticed, and pictures of another kind do not go through
    # the model.
    for path in (tmp_path / "photos").iterdir():
        Image.open(path).rotate(180).save(path)
    assert "not those" in succeeded(drawbench("evaluate", result["run"], *place)).stderr
    for path in (tmp_path / "photos").iterdir():
        Image.open(path).convert("L").save(path)
    failed(drawbench("evaluate", result["run"], *place), "3x8x8", "1x8x8")
    failed(drawbench("plot", result["run"], *place), "3x8x8", "1x8x8")
    for path in (tmp_path / "photos").iterdir():
        Image.open(path).convert("RGB").save(path)
    (tmp_path / "photos" / "05.png").write_bytes(b"not a picture")
    failed(drawbench("generate", *tiny(source=None), *place, *words), "05.png")
    skipped = succeeded(
        drawbench(
            "generate", *tiny(source=None, batch=4, pictures=1), *place, *words, "--broken", "skip"
        )
    )
    assert "05.png" in skipped.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--no-attention", "--attention", "read"], "contradict"),
        (["--out", "x"], "--from"),
        (["--bound-samples", "0"], "bound_samples"),
        (["--iw-samples", "0"], "iw_samples"),
        (["--recipe", "paper-8"], "for drawbench classify"),
    ],
)
def test_wrong_usage_is_named(words, said, home, place):
    failed(
        drawbench("generate", *tiny(), *place, "--runs", home / "runs", "--run", "none", *words),
        said,
        status=2,
    )
    assert not (home / "runs" / "none").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset", "folder"], "--images"),
        (["--images", "photos"], "--dataset folder"),
        (["--pixels", "static"], "static"),
        (["--dataset", "cifar10", "--pixels", "fixed"], "cifar10"),
    ],
)
def test_settings_that_do_not_go_together_are_named(words, said, home, place):
    given = tiny(source=None) if "cifar10" in words or "folder" in words else tiny()
    failed(
        drawbench("generate", *given, *place, "--runs", home / "runs", "--run", "none", *words),
        said,
    )
    assert not (home / "runs" / "none").exists()


def test_options_of_the_other_kind_are_refused(run, place):
    folder, _ = run
    failed(drawbench("evaluate", folder, *place, "--clutter", "0,4"), "--clutter", status=2)
    failed(drawbench("evaluate", folder, *place, "--images", 5), "--samples", status=2)
    failed(drawbench("generate", "--from", folder, "--glimpses", 3, *place), "--glimpses", status=2)
    failed(drawbench("generate", "--from", folder.parent / "nothing", *place), "nothing")
