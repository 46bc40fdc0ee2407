"""Every file of docs/extending.md trains from the command line, with its own equations."""

import itertools
import re
import sys
from pathlib import Path

import pytest
import torch
from commands import answer, drawbench, failed
from torch.distributions import Normal, kl_divergence

from drawbench import config, fast, load_run, models, tasks
from drawbench.data.batch import Batch
from drawbench.evaluation import bounds
from drawbench.reporters import Quiet

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL))
TINY = "--steps 12 --evaluate-every 6 --warmup 3 --batch 16 --threads 1 --device cpu"
FOVEA = (
    "classify --model fovea:network --set patch=4 --set zoom=2.5 --set hidden=16 --set glimpses=3 "
    "--source digits --canvas 40 --clutter 2 --run fovea"
)
PRIOR = (
    "generate --model learned_prior:network --set steps=3 --set read_patch=3 --source digits "
    "--pixels threshold --learning-rate 0.01 --run prior"
)
STRIPES = "classify --dataset stripes:dataset --model draw --patch 6 --glimpses 2 --hidden 16"
CONDITIONAL = (
    "generate --dataset conditional:dataset --model conditional:ConditionalDraw --set steps=2 "
    "--set hidden=16 --set latent=4 --validation-images 50 --run conditional"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files of the page, in which commands run."""
    folder = tmp_path_factory.mktemp("extending")
    for name, source in FILES.items():
        (folder / f"{name}.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        yield folder
    for name in FILES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def fovea(folder):
    return answer(*f"{FOVEA} {TINY}".split())


@pytest.fixture(scope="module")
def prior(folder):
    return answer(*f"{PRIOR} {TINY}".split())


def model_of(result: dict, name: str):
    return load_run(result["run"], trusted=[name]).model


def test_the_page_has_the_files_that_are_tested_here():
    assert list(FILES) == ["fovea", "learned_prior", "stripes", "conditional", "mymodel"]


# ------------------------------------------------------------------------------------- a glimpse


def slow_read(image, where, side):
    """Read one image (H, W) filter by filter, in float64 (DRAW, equations 19-27)."""
    patch = torch.zeros(side, side, dtype=torch.float64)
    x, y, variance, stride, intensity = (float(number) for number in where)
    for j, i in itertools.product(range(side), repeat=2):
        weights = []
        for size, centre, number in zip(image.shape, (y, x), (j, i), strict=True):
            pixels = torch.arange(1, size + 1, dtype=torch.float64)
            mean = centre + (number + 0.5 - side / 2) * stride
            filters = torch.exp(-((pixels - mean) ** 2) / 2 / variance)
            weights.append(filters / filters.sum())
        patch[j, i] = intensity * (torch.outer(*weights) * image).sum()
    return patch


@torch.no_grad()
def test_the_fovea_reads_two_scales(fovea):
    assert (fovea["model"], fovea["pixels_read"]) == ("fovea:network", 3 * 2 * 4 * 4)
    model = model_of(fovea, "fovea")
    images = torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    record = model(images)
    assert record.patches.shape == (2, 3, 2, 4, 4)
    for look in range(3):
        where = [field[1, look].double() for field in record.windows]
        wide = [where[0], where[1], 2.5**2 * where[2], 2.5 * where[3], where[4]]
        expected = [slow_read(images[1, 0].double(), scale, 4) for scale in (where, wide)]
        actual = record.patches[1, look].double()
        torch.testing.assert_close(actual, torch.stack(expected), atol=1e-5, rtol=0)


def test_the_figures_outline_both_scales(fovea):
    assert (Path(fovea["run"]) / "figures" / "glimpses.gif").is_file()
    model = model_of(fovea, "fovea")
    where = model(torch.rand(2, 1, 40, 40)).windows
    fine, coarse = (model.glimpse.corners(where, 40, 40, scale=scale) for scale in (0, 1))
    centre = fine.mean(-2, keepdim=True)
    torch.testing.assert_close(coarse - centre, 2.5 * (fine - centre))


def gradients(network, loss) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters()), allow_unused=False))


@pytest.mark.parametrize("words", [f"{FOVEA} {TINY}", f"{PRIOR} {TINY}"])
def test_training_uses_the_equations_of_the_example(folder, words):
    """The loss of the task has the gradient of the network's own forward, in every parameter."""
    name, *rest = words.split()
    module = next(word for word in rest if ":" in word)
    kind = {"classify": config.Classify, "generate": config.Generate}[name]
    given = {"model": module, "source": "digits", "steps": 1, "threads": 1, "device": "cpu"}
    given |= {"canvas": 40} if name == "classify" else {"pixels": "threshold"}
    roots = {"sources_root": folder, "datasets_root": folder / "datasets"}
    settings = config.merge(kind, {}, given)
    task = tasks.create(settings, **roots, reporter=Quiet(), trusted=[module])
    batch, noise = task.batch(0, 4)
    loss, _ = task.loss((batch, noise))
    images = models.as_images(batch.images)
    network = getattr(task.model, "network", task.model)
    if name == "classify":
        own = torch.nn.functional.cross_entropy(network(images).logits[:, -1], batch.labels)
    else:
        own = network(images, noise).terms(images).bound.mean()
    assert not fast.has_fast_path(task.model)
    assert not fast.has_fast_path(network)
    torch.testing.assert_close(gradients(network, loss), gradients(network, own))


def test_a_recipe_imports_a_module_only_if_it_is_trusted(folder):
    recipe = 'task = "classify"\n[model]\nmodel = "fovea:network"\n[model.arguments]\npatch = 0\n'
    (folder / "recipe.toml").write_text(recipe)
    words = ("classify", "--recipe", "recipe.toml", "--source", "digits", "--steps", 1)
    failed(drawbench(*words, "--canvas", 40), "--trust fovea")
    failed(drawbench(*words, "--canvas", 40, "--trust", "fovea"), "patch 0")  # the module ran


def test_a_run_imports_its_module_only_if_it_is_trusted(fovea):
    run = fovea["run"]
    for command in ("evaluate", "plot"):
        failed(drawbench(command, run), "--trust fovea")
    assert answer("evaluate", run, "--trust", "fovea")["errors"] == fovea["errors"]
    assert answer("resume", run)["errors"] == fovea["errors"]  # finished: nothing to import
    (Path(run) / "result.json").unlink()  # as after an interruption before the end
    failed(drawbench("resume", run), "--trust fovea")
    assert answer("resume", run, "--trust", "fovea")["errors"] == fovea["errors"]


# ----------------------------------------------------------------------------------- a generator


@torch.no_grad()
def test_the_bound_is_that_of_the_learned_prior(prior):
    model = model_of(prior, "learned_prior")
    assert model.to_prior.weight.abs().max() > 0  # it started at zero
    index = torch.arange(6)
    images = (torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.2).byte()
    measured = bounds.bound(model, Batch(255 * images))
    noise = bounds.noise(index, model.steps, model.latent, 0, "bound", 0)
    record = model(images.float(), noise)
    posterior, learned = (
        Normal(some.mu.double(), some.log_sigma.double().exp())
        for some in (record.posterior, record.prior)
    )
    kl = kl_divergence(posterior, learned).sum(-1)
    torch.testing.assert_close(torch.from_numpy(measured.kl), kl, rtol=1e-4, atol=1e-4)
    standard = Normal(torch.zeros(()).double(), 1.0)
    assert (kl - kl_divergence(posterior, standard).sum(-1)).abs().max() > 1e-3


@torch.no_grad()
def test_samples_come_from_the_learned_prior(prior):
    model = model_of(prior, "learned_prior")
    noise = torch.randn(2, model.steps, model.latent, generator=torch.Generator().manual_seed(0))
    state = model.start(2)
    for t in range(model.steps):
        mu, log_sigma = model.to_prior(state.decoder.hidden).chunk(2, dim=1)
        state, _ = model.write_latent(state, mu + log_sigma.exp() * noise[:, t])
    torch.testing.assert_close(model.sample(noise).mean, torch.sigmoid(state.canvas))
    drawn = answer("generate", "--from", prior["run"], "--trust", "learned_prior", "--seed", 3)
    assert drawn["figures"]


# ------------------------------------------------------------------------- data sets, conditions


def test_the_stripes_are_classified_into_their_own_classes(folder):
    result = answer(*f"{STRIPES} {TINY}".split())
    assert (result["dataset"], result["n"], result["chance_error"]) == ("stripes", 1000, 75.0)
    assert [len(row) for row in result["confusion"]] == [4] * 4
    failed(drawbench("evaluate", result["run"]), "--trust stripes")
    again = answer("evaluate", result["run"], "--trust", "stripes")
    assert again["errors"] == result["errors"]


def test_the_condition_reaches_the_drawing(folder):
    result = answer(*f"{CONDITIONAL} {TINY}".split())
    assert result["dataset"] == "striped-conditions"
    assert (Path(result["run"]) / "figures" / "samples.png").is_file()
    model = model_of(result, "conditional")
    with torch.no_grad():
        means = model.sample(torch.zeros(4, 2, 4), torch.eye(4)).mean
        alone = model.sample(torch.zeros(1, 2, 4), torch.eye(4)[:1]).mean
    assert (means[0] - means[1]).abs().max() > 1e-5
    torch.testing.assert_close(alone, means[:1])


def test_any_network_is_measured_on_the_test_file(folder):
    import mymodel

    torch.manual_seed(0)
    torch.save(mymodel.network().state_dict(), folder / "mymodel.pt")
    words = "evaluate --model mymodel:network --weights mymodel.pt --source digits --canvas 40"
    assert answer(*words.split(), "--clutter", 2)["model"] == "mymodel:network"
