import json
import math

import pytest
import torch

from drawbench import config
from drawbench.config import Generate
from drawbench.errors import Problem
from drawbench.evaluation import bounds
from drawbench.figures import run as figures
from drawbench.models.draw import Draw
from drawbench.models.vae import VAE
from drawbench.runs import Run
from drawbench.tasks import generate, load_run
from drawbench.tasks.generate import Experiment
from drawbench.training import Interrupted, Quiet, StopFlag

SIZES = {
    "glimpses": 3,
    "hidden": 8,
    "latent": 4,
    "batch": 20,
    "steps": 4,
    "evaluate_every": 2,
    "validation_images": 30,
}
SMALL = config.replace(Generate(), source="digits", pixels="fixed", **SIZES)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def experiment(place):
    return Experiment(SMALL, place / "sources", place, Quiet())


@pytest.fixture(scope="module")
def trained(experiment, place):
    run = Run.create(place / "runs" / "one", experiment.config)
    trainer = experiment.train(run, StopFlag())
    model = generate.load_model(run)
    measured, weighted = experiment.measure(
        model, StopFlag(), samples=2, iw_samples=3, iw_images=40
    )
    run.write_result(
        generate.result(
            experiment.config, experiment.data, measured, weighted, trainer, "drawbench generate"
        )
    )
    return run, model


def test_a_batch_is_a_function_of_its_numbers_noise_included(experiment):
    task = experiment.task()
    images, noise = task.batch(0, 12)
    again, its_noise = task.batch(5, 4)
    assert torch.equal(again, images[5:9]) and torch.equal(its_noise, noise[5:9])
    assert noise.shape == (12, 3, 4) and images.shape == (12, 1, 28, 28)
    assert not torch.equal(noise[:, 0], noise[:, 1]), "each step has noise of its own"
    epoch = len(experiment.data.train)
    assert not torch.equal(task.batch(epoch, 12)[1], noise), "and each presentation"


def test_the_loss_is_the_bound_of_the_batch(experiment):
    task = experiment.task()
    images, noise = task.batch(0, 20)
    loss, facts = task.loss((images, noise))
    made = task.model(images, noise)
    p = torch.sigmoid(made.logits.double())
    reconstruction = -(images * p.log() + (1 - images) * (1 - p).log()).flatten(1).sum(1).mean()
    kl = (
        (0.5 * (made.mu**2 + (2 * made.log_sigma).exp() - 2 * made.log_sigma - 1))
        .flatten(1)
        .sum(1)
        .mean()
    )
    assert loss.item() == pytest.approx((reconstruction + kl).item(), rel=1e-5)
    assert facts["bound"] == loss.item() and facts["kl"] + facts["reconstruction"] == pytest.approx(
        facts["bound"]
    )


def test_the_first_canvas_is_the_mean_picture(experiment):
    canvas = generate.start_canvas(experiment.data.train)
    mean = experiment.data.train.batch(0, len(experiment.data.train)).double().mean(0) / 255
    assert torch.isfinite(canvas).all()
    assert (torch.sigmoid(canvas.double()) - mean).abs().max() < 0.01
    assert torch.equal(experiment.task().model.start_canvas, canvas)


def test_a_run_records_what_was_measured(trained, experiment):
    run, model = trained
    result = json.loads((run.folder / "result.json").read_text())
    assert (
        result["metric"] == "nll_bound_nats"
        and result["dataset"] == "digits-fixed"
        and result["n"] == len(experiment.data.test)
    )
    assert result["value"] == pytest.approx(result["reconstruction"] + result["kl"])
    assert (
        result["kl"] == pytest.approx(sum(result["kl_per_step"]))
        and len(result["kl_per_step"]) == 3
    )
    assert result["low"] < result["value"] < result["high"]
    assert (result["bound_samples"], result["iw_samples"], result["iw_images"]) == (2, 3, 40)
    assert result["bits_per_dimension"] == pytest.approx(result["value"] / (784 * math.log(2)))
    assert "entropy_floor" not in result
    again = bounds.bound(model, experiment.data.test, samples=2, batch=33)
    assert again.value == pytest.approx(result["value"], rel=1e-6)
    metrics = run.metrics()
    assert list(metrics["step"]) == [2, 4]
    assert metrics["validation_bound"].to_numpy() == pytest.approx(
        (metrics["validation_reconstruction"] + metrics["validation_kl"]).to_numpy()
    )
    assert metrics[["kl_1", "kl_2", "kl_3"]].sum(axis=1).to_numpy() == pytest.approx(
        metrics["validation_kl"].to_numpy()
    )


def test_a_run_opens_as_it_was_trained(trained):
    run, model = trained
    loaded = load_run(run.folder)
    assert (
        loaded.config == run.config and isinstance(loaded.model, Draw) and not loaded.model.training
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            loaded.model.state_dict().values(), model.state_dict().values(), strict=True
        )
    )


def test_pixels_between_have_their_floor_beside_the_value(place):
    grey = Experiment(config.replace(SMALL, pixels="intensity"), place / "sources", place, Quiet())
    measured, _ = grey.measure(
        grey.task().model, StopFlag(), samples=1, iw_samples=None, iw_images=None
    )
    fields = generate.measured_fields(measured, None, grey.data)
    assert 0 < fields["entropy_floor"] < fields["value"]
    assert fields["above_floor"] == pytest.approx(fields["value"] - fields["entropy_floor"])
    assert "iw_bound" not in fields


@pytest.mark.parametrize(
    ("settings", "reads", "writes"),
    [
        ({"attention": "both"}, 2, 5),
        ({"attention": "read"}, 2, None),
        ({"attention": "write"}, None, 5),
        ({"attention": "none"}, None, None),
    ],
)
def test_attention_where_it_is_asked_for(settings, reads, writes):
    model = generate.build(config.replace(SMALL, **settings), (3, 8, 9))
    assert isinstance(model, Draw) and (model.read_patch, model.write_patch, model.size) == (
        reads,
        writes,
        (3, 8, 9),
    )


def test_the_vae_goes_the_same_way(place):
    experiment = Experiment(config.replace(SMALL, model="vae"), place / "sources", place, Quiet())
    run = Run.create(place / "runs" / "vae", experiment.config)
    trainer = experiment.train(run, StopFlag())
    assert isinstance(trainer.task.model, VAE)
    measured, _ = experiment.measure(
        generate.load_model(run), StopFlag(), samples=1, iw_samples=None, iw_images=None
    )
    run.write_result(
        generate.result(experiment.config, experiment.data, measured, None, trainer, "")
    )
    assert run.result()["glimpses"] == 1 and len(run.result()["kl_per_step"]) == 1
    drawn = figures.of_generator(run, generate.load_model(run), experiment.data, 4)
    assert all(path.stat().st_size > 0 for path in drawn)


def test_nearest_pictures_are_the_nearest(experiment):
    train = experiment.data.train.batch(0, len(experiment.data.train)).float() / 255
    samples = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = figures.nearest(samples, experiment.data)
    for sample, near in zip(samples, found, strict=True):
        assert (sample - near).norm() == pytest.approx(
            (train - sample).flatten(1).norm(dim=1).min().item()
        )
    assert torch.equal(figures.nearest(train[7:9], experiment.data), train[7:9])


def test_interpolations_go_from_one_image_to_another(trained, experiment):
    _, model = trained
    rows = figures.interpolations(model, experiment.data)
    assert rows.shape == (figures.INTERPOLATIONS, figures.BETWEEN, 1, 28, 28)
    index = bounds.evenly(len(experiment.data.test), 2 * figures.INTERPOLATIONS)
    images = bounds.as_images(experiment.data.test[index])
    with torch.no_grad():
        ends = torch.sigmoid(model(images, torch.zeros(len(images), 3, 4)).logits)
    assert torch.allclose(rows[:, 0], ends[: figures.INTERPOLATIONS], atol=1e-5)
    assert torch.allclose(rows[:, -1], ends[figures.INTERPOLATIONS :], atol=1e-5)


def test_pictures_follow_from_the_seed_and_samples_from_no_image(trained, experiment, tmp_path):
    _, model = trained
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        figures.of_drawings(model, experiment.data, tmp_path / name, 4, seed)
    same = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert same == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert same["samples.png"] != (tmp_path / "c" / "samples.png").read_bytes()


def test_a_run_of_another_kind_or_without_a_size_is_named(trained, place, tmp_path):
    with pytest.raises(Problem, match="not of a generator"):
        generate.load_model(Run.create(tmp_path / "classifier", config.Classify()))
    run = Run.create(tmp_path / "sizeless", SMALL)
    run.save_best({"weight": torch.zeros(1)}, {"step": 1})
    with pytest.raises(Problem, match="which size"):
        generate.load_model(run)
    run.save_best({"weight": torch.zeros(1)}, {"step": 1, "size": [1, 28, 28]})
    with pytest.raises(Problem, match="do not fit"):
        generate.load_model(run)


class StopAt(Quiet):
    """Raises the flag after some updates, as a signal would."""

    def __init__(self, flag: StopFlag, step: int):
        self.flag, self.stop = flag, step

    def progress(self, step, total, facts):
        if step == self.stop:
            self.flag.number = 15


@pytest.mark.parametrize("step", [1, 2, 3])
def test_stopped_and_resumed_is_the_same_to_the_bit(trained, experiment, tmp_path, step):
    whole, _ = trained
    run = Run.create(tmp_path / "one", experiment.config)
    flag = StopFlag()
    experiment.reporter = StopAt(flag, step)
    with pytest.raises(Interrupted):
        experiment.train(run, flag)
    experiment.reporter = Quiet()
    assert experiment.train(run, StopFlag()).step == 4
    assert (run.folder / "metrics.csv").read_bytes() == (whole.folder / "metrics.csv").read_bytes()
    for load in (lambda one: one.load_state(pytest.fail), Run.load_best):
        (state, _), (other, _) = load(run), load(whole)
        assert state.keys() == other.keys() and all(
            torch.equal(state[name], other[name]) for name in state
        )
