"""What a task computes: its batches, losses and measurements, against their definitions."""

import functools
import math
import platform
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from commands import same_run

from drawbench import config, fast, streams, tasks
from drawbench.config import Classify, Generate
from drawbench.data import digits, stored
from drawbench.errors import Problem
from drawbench.evaluation import bounds
from drawbench.models import as_images
from drawbench.models.draw import Draw
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.glimpses import GaussianGlimpse, HardGlimpse, RandomGlimpse
from drawbench.reporters import Quiet
from drawbench.runs import Run
from drawbench.tasks import common, generate, load_run, weights
from drawbench.tasks import task as lifecycle
from drawbench.training import Interrupted, StopFlag, say_what_is_missing

TRAINING = {"source": "digits", "steps": 4, "evaluate_every": 2, "threads": 1, "device": "cpu"}
TRAINING |= {"figures": False}
CLASSIFY = {"canvas": 30, "clutter": 1, "glimpses": 3, "patch": 4, "hidden": 16, "batch": 16}
GENERATE = {"pixels": "fixed", "glimpses": 3, "hidden": 8, "latent": 4, "batch": 20}
GENERATE |= {"validation_images": 30, "bound_samples": 2, "iw_samples": 3, "iw_images": 40}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def make(place):
    """A function from a kind of configuration and changed settings to a task."""

    def make(kind, **changes):
        given = TRAINING | (CLASSIFY if kind is Classify else GENERATE) | changes
        given = {key: value for key, value in given.items() if value is not None}
        roots = {"sources_root": place / "sources", "datasets_root": place}
        return tasks.create(config.merge(kind, {}, given), **roots, reporter=Quiet())

    return make


@pytest.fixture(scope="module")
def classifier(make):
    return make(Classify)


@pytest.fixture(scope="module")
def generator(make):
    return make(Generate)


def trained(task, folder, reporter=None):
    """Train to the end, measure and conclude, as the command does."""
    reporter = reporter or Quiet()
    run = Run.open(folder) if folder.exists() else Run.create(folder, task.config)
    trainer = lifecycle.train(task, run, reporter, StopFlag())
    measurement = lifecycle.measure(task, run, reporter, lambda: None)
    lifecycle.conclude(task, run, trainer, measurement, reporter, 4)
    return run


@pytest.fixture(scope="module")
def generator_run(make, place):
    return trained(make(Generate), place / "generator")


# ----------------------------------------------------------------------------------- classification


def test_a_training_image_is_a_function_of_its_number(classifier):
    (images, labels, _), _ = classifier.batch(0, 40)
    for first, count in [(0, 1), (7, 5), (39, 1), (13, 27)]:
        batch, _ = classifier.batch(first, count)
        assert torch.equal(batch.images, images[first : first + count])
        assert torch.equal(batch.labels, labels[first : first + count])


def test_training_scenes_are_not_those_of_the_stored_sets(classifier, place):
    files = {
        image.tobytes()
        for split in digits.SPLITS
        for image in stored.load(place / classifier.dataset.name, split).images
    }
    images = classifier.batch(0, 200)[0].images
    assert not any(image.numpy().tobytes() in files for image in images)


def test_fixed_training_takes_the_stored_images_once_an_epoch(make, place):
    task = make(Classify, fixed_train=True)
    n = task.images_per_epoch
    images = stored.load(place / task.dataset.name, "train").images
    expected = sorted(image.tobytes() for image in images)
    epochs = [
        [image.numpy().tobytes() for image in task.batch(start, n)[0].images] for start in (0, n)
    ]
    assert all(sorted(epoch) == expected for epoch in epochs)
    assert epochs[0] != epochs[1]
    across = task.batch(n - 3, 5)[0].images
    assert [image.numpy().tobytes() for image in across] == epochs[0][-3:] + epochs[1][:2]


@pytest.mark.parametrize("intermediate", [0.0, 0.5])
def test_the_loss_is_the_cross_entropy_of_the_answers(make, intermediate):
    task = make(Classify, intermediate=intermediate)
    batch, noise = task.batch(0, 16)
    loss, metrics = task.loss((batch, noise))
    logits = task.model(as_images(batch.images)).logits
    each = [F.cross_entropy(logits[:, t], batch.labels) for t in range(3)]
    torch.testing.assert_close(loss, each[2] + intermediate * (each[0] + each[1]) / 2)
    torch.testing.assert_close(metrics["loss"], each[2].detach())
    wrong = (logits[:, -1].argmax(-1) != batch.labels).float().mean()
    assert float(metrics["error"]) == pytest.approx(100 * float(wrong))


@torch.no_grad()
def test_validation_counts_every_image_once(classifier):
    part, metrics = classifier.dataset.validation, classifier.validate(classifier.model, print)
    logits = classifier.model(as_images(part.images)).logits[:, -1]
    wrong = 100 * float((logits.argmax(-1) != part.labels).double().mean())
    assert metrics["validation_error"] == pytest.approx(wrong)
    expected = float(F.cross_entropy(logits, part.labels))
    assert metrics["validation_loss"] == pytest.approx(expected, abs=1e-5)


def test_a_few_updates_learn(make):
    task = make(Classify, clutter=0, canvas=28, hidden=64, patch=6, batch=64)
    optimizer = torch.optim.Adam(task.model.parameters(), lr=3e-3)
    for step in range(60):
        loss, _ = task.loss(task.batch(step * 64, 64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * math.log(10)


def test_a_classifier_needs_one_digit_per_image(make):
    with pytest.raises(Problem, match="one digit"):
        make(Classify, digits=2)


# --------------------------------------------------------------------------------------- generation


def test_a_batch_is_a_function_of_its_numbers_noise_included(generator):
    batch, noise = generator.batch(0, 12)
    again, its_noise = generator.batch(5, 4)
    assert torch.equal(again.images, batch.images[5:9])
    assert torch.equal(its_noise, noise[5:9])
    assert noise.shape == (12, 3, 4)
    assert batch.images.shape == (12, 1, 28, 28)
    assert not torch.equal(noise[:, 0], noise[:, 1])  # each step has noise of its own
    later = generator.batch(generator.images_per_epoch, 12)[1]
    assert not torch.equal(later, noise)  # and so has each presentation


def test_the_loss_is_the_bound_of_the_batch(generator):
    batch, noise = generator.batch(0, 20)
    loss, metrics = generator.loss((batch, noise))
    images = as_images(batch.images)
    record = generator.model(images, noise)
    p = torch.sigmoid(record.likelihood.logits.double())
    reconstruction = -(images * p.log() + (1 - images) * (1 - p).log()).flatten(1).sum(1).mean()
    mu, log_sigma = record.posterior
    kl = 0.5 * (mu**2 + (2 * log_sigma).exp() - 2 * log_sigma - 1)
    kl = kl.flatten(1).sum(1).mean()
    assert loss.item() == pytest.approx((reconstruction + kl).item(), rel=1e-5)
    assert metrics["bound"] == loss
    assert metrics["kl"].item() == pytest.approx(kl.item(), rel=1e-5)


def test_the_first_canvas_is_the_mean_image(generator):
    train = generator.dataset.train
    canvas = generate.start_canvas(train)
    mean = train.batch(0, len(train)).images.double().mean(0) / 255
    assert (torch.sigmoid(canvas.double()) - mean).abs().max() < 0.01
    assert torch.equal(generator.model.start_canvas, canvas)


def test_256_levels_have_a_likelihood_and_a_mean_image_of_their_own(make):
    task = make(Generate, pixels="intensity", likelihood="logistic", iw_samples=None)
    train = task.dataset.train
    mean = train.batch(0, len(train)).images.double().mean(0) / 255
    assert (0.5 + task.model.start_canvas.double() / 4 - mean).abs().max() < 0.01
    loss, _ = task.loss(task.batch(0, 20))
    loss.backward()
    assert task.model.log_scale.grad.abs() > 0
    measured = task.test(task.model, lambda: None, lambda done, total: None).fields
    assert measured["bits_per_dimension"] == pytest.approx(measured["value"] / 784 / math.log(2))
    assert "entropy_floor" not in measured
    task = make(Generate, pixels="intensity", iw_samples=None)  # no likelihood, so no bits
    measured = task.test(task.model, lambda: None, lambda done, total: None).fields
    assert "entropy_floor" in measured and "bits_per_dimension" not in measured
    task = make(Generate, pixels="intensity", likelihood="logistic", iw_samples=None)
    assert task.facts()["pixels"].endswith("256 levels; a discretised logistic")


def test_black_and_white_pixels_have_no_256_levels(make):
    with pytest.raises(Problem, match=r"256 levels.*digits-fixed.*--pixels intensity"):
        make(Generate, likelihood="logistic")


def test_a_run_records_what_was_measured(generator_run, generator):
    result, metrics = generator_run.result(), generator_run.metrics()
    test = generator.dataset.test
    assert (result["metric"], result["dataset"]) == ("nll_bound_nats", "digits-fixed")
    assert result["value"] == pytest.approx(result["reconstruction"] + result["kl"])
    assert result["kl"] == pytest.approx(sum(result["kl_per_step"]))
    assert result["low"] < result["value"] < result["high"]
    assert (result["bound_samples"], result["iw_samples"], result["iw_images"]) == (2, 3, 40)
    assert result["bits_per_dimension"] == pytest.approx(result["value"] / (784 * math.log(2)))
    assert "entropy_floor" not in result
    again = bounds.bound(load_run(generator_run.folder).model, test, samples=2, batch=33)
    assert again.value == pytest.approx(result["value"], rel=1e-6)
    assert list(metrics["step"]) == [2, 4]
    parts = metrics["validation_reconstruction"] + metrics["validation_kl"]
    assert metrics["validation_bound"].to_numpy() == pytest.approx(parts.to_numpy())
    steps = metrics[["kl_1", "kl_2", "kl_3"]].sum(axis=1)
    assert steps.to_numpy() == pytest.approx(metrics["validation_kl"].to_numpy())


def test_a_loaded_run_has_the_best_weights_and_is_ready_to_measure(generator_run):
    loaded, (best, _) = load_run(generator_run.folder), generator_run.load_best()
    state = loaded.model.state_dict()
    assert loaded.config == generator_run.config
    assert isinstance(loaded.model, Draw) and not loaded.model.training
    assert state.keys() == best.keys()
    assert all(torch.equal(state[name], best[name]) for name in best)


def test_grey_pixels_have_their_floor_beside_the_value(make):
    task = make(Generate, pixels="intensity", iw_samples=None)
    fields = task.test(task.model, lambda: None, lambda done, total: None).fields
    assert 0 < fields["entropy_floor"] < fields["value"]
    assert fields["above_floor"] == pytest.approx(fields["value"] - fields["entropy_floor"])
    assert "iw_bound" not in fields


@pytest.mark.parametrize(
    ("attention", "reads", "writes"),
    [("both", 2, 5), ("read", 2, None), ("write", None, 5), ("none", None, None)],
)
def test_attention_is_where_it_is_asked_for(attention, reads, writes):
    settings = config.replace(Generate(), attention=attention)
    model = weights.build(settings, {"channels": 3, "height": 8, "width": 9})
    assert (model.read_patch, model.write_patch, model.size) == (reads, writes, (3, 8, 9))


# ------------------------------------------------------------------------------------- both of them


@pytest.mark.parametrize("kind", [Classify, Generate])
def test_initial_weights_are_a_function_of_the_seed_alone(make, kind):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (make(kind, seed=seed).model.state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)  # torch's global generator is left alone
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("kind", "model"),
    [(Generate, "vae"), (Generate, "draw"), (Classify, "conv2"), (Classify, "draw")],
)
def test_bfloat16_rounds_the_products_of_training(make, monkeypatch, kind, model):
    monkeypatch.setattr(fast, "_cpu_multiplies_bfloat16", lambda: True)
    lacking = {} if model == "draw" else {"glimpses": None, "patch": None}
    losses = []
    for precision in ("float32", "bfloat16"):
        task = make(kind, model=model, precision=precision, **lacking)
        batch = task.batch(0, 16)
        losses.append(float(task.loss(batch)[0].detach()))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    dtypes = []
    for part in task.model.modules():
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d):
            part.register_forward_hook(lambda _, inputs, output: dtypes.append(output.dtype))
    task.loss(batch)
    expected = {torch.bfloat16} if lacking else {torch.bfloat16, torch.float32}  # windows
    assert set(dtypes) == expected


@pytest.mark.parametrize(
    ("settings", "option"),
    [({"precision": "tf32"}, "--precision tf32"), ({"graph": True}, "--graph")],
)
def test_what_only_a_gpu_has_is_named(settings, option):
    training = config.replace(Classify(), **settings).training
    for device in ("cpu", "mps"):
        with pytest.raises(
            Problem, match=f"{option} needs a CUDA GPU, but this trains on {device}"
        ):
            common.matmul_dtype(training, torch.device(device))


@pytest.mark.parametrize("has_it", [True, False])
def test_a_cpu_without_bfloat16_multiplies_float32_and_says_so(monkeypatch, has_it):
    monkeypatch.setattr(fast, "_cpu_multiplies_bfloat16", lambda: has_it)
    training, cpu, said = config.Training(precision="bfloat16"), torch.device("cpu"), []
    expected = torch.bfloat16 if has_it else torch.float32
    assert common.matmul_dtype(training, cpu) == expected
    assert common.matmul_dtype(training, torch.device("cuda")) == torch.bfloat16
    say_what_is_missing(training, cpu, said.append)
    assert any("products are in float32" in line for line in said) != has_it
    said.clear()
    say_what_is_missing(config.Training(), cpu, said.append)
    assert not any("float32" in line for line in said)


def test_the_processor_says_whether_it_multiplies_bfloat16():
    flags = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not flags.exists():
        pytest.skip("only Linux on x86 lists what its processor can do")
    assert fast.multiplies_bfloat16() == ("avx512_bf16" in flags.read_text().split())


def test_an_apple_gpu_is_taken_where_torch_has_it(monkeypatch):
    """Only which device is chosen: no Apple GPU has been tried."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    mps = common.device_of("mps")
    assert mps.type == "mps" and streams.exact_device(mps).type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(Problem, match="--device mps was asked for, but torch finds no MPS device"):
        common.device_of("mps")


@pytest.mark.parametrize(
    ("graph", "device", "glimpse", "expected"),
    [
        (None, "cuda", GaussianGlimpse, True),
        (None, "cuda", RandomGlimpse, False),  # hashes images, which is left to the host
        (None, "cuda", HardGlimpse, True),
        (None, "cpu", GaussianGlimpse, False),
        (False, "cuda", GaussianGlimpse, False),
        (True, "cuda", RandomGlimpse, True),
    ],
)
def test_graphs_are_replayed_where_asked_or_known_to_be_safe(graph, device, glimpse, expected):
    training = config.replace(Classify(), graph=graph).training
    model = GlimpseClassifier(glimpse(3), glimpses=1)
    assert common.replays(training, torch.device(device), model) == expected


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "do not say which image size"),
        ({"size": [1, 28]}, "do not say which image size"),
        ({"size": [1, 28, 10**9]}, "do not say which image size"),
        ({"size": [1, 28, 28]}, "do not fit the model"),
    ],
)
def test_weights_for_another_size_or_of_another_shape_are_refused(generator, place, about, message):
    run = Run.create(place / "misfit", generator.config, force=True)
    run.save_best({"weight": torch.zeros(1)}, about)
    with pytest.raises(Problem, match=message):
        load_run(run.folder)


def test_figures_that_fail_do_not_cost_the_result(make, tmp_path, monkeypatch):
    sentences, reporter = [], Quiet()
    reporter.say = sentences.append
    monkeypatch.setattr("drawbench.tasks.pictures.classifier_pictures", lambda *_: 1 / 0)
    run = trained(make(Classify, figures=True), tmp_path / "run", reporter)
    assert 0 < run.result()["errors"] <= 400
    (said,) = [text for text in sentences if "figures" in text]
    assert "ZeroDivisionError: division by zero" in said
    assert f"drawbench plot {run.folder}" in said


class StopAt(Quiet):
    """Sets the flag after some updates, as a signal would."""

    def __init__(self, flag, step):
        self.flag, self.stop = flag, step

    def progress(self, step, total, facts):
        if step == self.stop:
            self.flag.number = 15


@pytest.mark.parametrize("step", [1, 2, 3])
def test_stopped_and_resumed_is_the_same_to_the_bit(make, generator_run, tmp_path, step):
    """Also where it began with the weights of another run, which is needed only for the start."""
    other = shutil.copytree(generator_run.folder, tmp_path / "other")
    start = functools.partial(make, Generate, start=str(other), iw_samples=None)
    whole = trained(start(), tmp_path / "whole")
    task, flag = start(), StopFlag()
    run = Run.create(tmp_path / "stopped", task.config)
    with pytest.raises(Interrupted):
        lifecycle.train(task, run, StopAt(flag, step), flag)
    shutil.rmtree(other)
    same_run(trained(start(), run.folder).folder, whole.folder)
