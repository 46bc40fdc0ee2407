"""``export --onnx``: the file computes what the model computes, for any number of images."""

import json
import sys

import numpy as np
import pytest
import torch
from commands import answer, drawbench, failed

from drawbench import config, load_run, models, runs
from drawbench.errors import Problem
from drawbench.tasks import onnx_export

SMALL = {"patch": 4, "glimpses": 2, "hidden": 8}
EXPORTED = ["draw", *(pytest.param(name, marks=pytest.mark.slow) for name in (
    "affine", "conv2", "conv6", "eye", "fc", "fixed", "ram", "stn"
))]  # fmt: skip


@pytest.fixture
def onnxruntime():
    pytest.importorskip("onnxscript")
    return pytest.importorskip("onnxruntime")


def classifier(name: str):
    kind = config.CLASSIFIERS[name]
    given = {k: v for k, v in SMALL.items() if k in kind.__dataclass_fields__}
    given |= {"patch": 8} if name == "stn" else {}
    facts = {"channels": 1, "height": 40, "width": 40, "classes": 10}
    torch.manual_seed(0)
    model = models.make(models.CLASSIFIERS[name], kind(**given).arguments, facts).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # or the answers hardly depend on the image
    return model


@pytest.mark.parametrize("name", EXPORTED)
def test_a_classifier_answers_the_same_under_onnxruntime(name, tmp_path, onnxruntime):
    model, path = classifier(name), tmp_path / "model.onnx"
    onnx_export.export(model, (1, 40, 40), path, {"classes": ["a", "b"]})
    session = onnxruntime.InferenceSession(path)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["a", "b"]
    for count in (1, 7):
        images = torch.rand(count, 1, 40, 40, generator=torch.Generator().manual_seed(count))
        (found,) = session.run(["probabilities"], {"images": images.numpy()})
        with torch.no_grad():
            expected = model(images).logits.softmax(-1)
        assert found == pytest.approx(expected.numpy(), abs=1e-5)
        assert np.ptp(found[:, -1]) > 1e-3
    assert [each.name for each in session.get_inputs()] == ["images"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_computes_something_else_is_refused(tmp_path, onnxruntime):
    """It looks at places drawn from a hash of the image."""
    with pytest.raises(Problem, match="other numbers than the model"):
        onnx_export.export(classifier("random"), (1, 40, 40), tmp_path / "model.onnx", {})
    assert not list(tmp_path.iterdir())


def test_a_shared_generator_samples_the_same_under_onnxruntime(generated, tmp_path, onnxruntime):
    answer("export", generated[0], tmp_path / "copy", "--onnx", "--license", "mit")
    model = load_run(tmp_path / "copy").model
    session = onnxruntime.InferenceSession(tmp_path / "copy" / "model.onnx")
    noise = torch.randn(5, model.steps, model.latent, generator=torch.Generator().manual_seed(1))
    (found,) = session.run(["pictures"], {"noise": noise.numpy()})
    with torch.no_grad():
        expected = model.sample(noise).mean.numpy()
    assert found.shape == (5, 1, 28, 28) and found == pytest.approx(expected, abs=1e-5)
    assert "model.onnx" in (tmp_path / "copy" / "README.md").read_text()
    facts = session.get_modelmeta().custom_metadata_map
    assert (json.loads(facts["task"]), json.loads(facts["image"])) == ("generate", [1, 28, 28])


def test_without_the_packages_one_sentence_says_what_to_install(generated, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    words = ["export", generated[0], tmp_path / "copy", "--onnx"]
    failed(drawbench(*words), "pip install 'drawbench[onnx]'")
    assert not (tmp_path / "copy").exists()
    assert runs.Run.open(generated[0]).finished
    failed(drawbench(*words, "--no-weights"), "--onnx needs the weights", status=2)
