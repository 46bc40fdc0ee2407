"""What others can read: model cards, Croissant, PNG files, and a torch ``Dataset``."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import answer, drawbench, failed, flags, succeeded
from example_runs import animation, change, finished_run
from PIL import Image
from torch.utils.data import DataLoader

from drawbench import GeneratedDataset, load_run, records
from drawbench.data import cards, croissant, stored
from drawbench.errors import Problem
from drawbench.report.card import front_matter, model_card

PUBLISHED = Path(__file__).parent.parent / "results" / "published"


def card(folder: Path, license: str = "mit") -> str:
    return model_card(records.read(folder, print), license)


# ------------------------------------------------------------------------------------ model cards


def test_a_card_has_metrics_data_command_and_license():
    text = card(PUBLISHED / "draw-8-distorted")
    head, body = re.fullmatch(r"---\n(.*?)\n---\n\n(.*)", text, re.DOTALL).groups()
    assert head.startswith('license: "mit"\nlibrary_name: "drawbench"\n')
    assert '  - type: "accuracy"' in head and "value: 0.9703" in head
    assert "**2.97%** (95% interval 2.65 to 3.32)" in body and "10,000" in body
    assert "`cluttered-100x100-8-mnist`" in body and "drawbench classify --recipe paper-8" in body
    assert "(figures/glimpses.gif)" in body
    assert "There are no weights in this folder" in body and "drawbench predict" not in body
    assert "drawbench predict eye-4 picture.png" in card(PUBLISHED / "eye-4")
    drawn = card(PUBLISHED / "draw-20", "unknown")
    assert "**83.88 nats**" in drawn and "81.24 nats" in drawn and "has not stated" in drawn


def test_the_hub_reads_the_front_matter():
    hub = pytest.importorskip("huggingface_hub")
    for name, kind, value in (
        ("draw-8-distorted", "error_rate", 2.97),
        ("draw-20", "nll_bound", pytest.approx(83.88, abs=0.01)),
    ):
        data = hub.ModelCard(card(PUBLISHED / name)).data
        assert (data.library_name, data.license, data.model_name) == ("drawbench", "mit", name)
        (result,) = [each for each in data.eval_results if each.metric_type == kind]
        assert result.metric_value == value and result.dataset_split == "test"


def test_yaml_reads_what_was_meant():
    yaml = pytest.importorskip("yaml")
    record = records.read(PUBLISHED / "draw-8", print)
    head = model_card(record, "mit").split("---\n")[1]
    assert yaml.safe_load(head) == front_matter(record, "mit")


def test_a_name_cannot_write_markup_into_a_card(tmp_path):
    folder = finished_run(tmp_path / "a|b<script>`#", {"source": "digits", "start": "x/<b>[y]"})
    animation(folder)
    change(folder / "environment.json", processor="<img src=x>|\n# title")
    text = card(folder)
    body = text.split("\n---\n", 1)[1]
    assert "<script>" not in body and "<img" not in body and "\n# title" not in body
    assert "embedded digits" in body and "(figures/glimpses.gif)" in body
    assert json.dumps(folder.name) in text
    assert not re.search(r"/home|/tmp|/work", body)


def test_an_exported_folder_has_its_card_and_is_opened_by_load_run(classified, tmp_path):
    copy = tmp_path / "shared"
    answer("export", classified[0], copy, "--license", "cc-by-4.0")
    text = (copy / "README.md").read_text()
    assert text.startswith('---\nlicense: "cc-by-4.0"\n') and "| `best.safetensors` |" in text
    (copy / ".gitattributes").write_text("*.safetensors filter=lfs\n")  # as the hub adds it
    loaded, original = load_run(copy), load_run(classified[0])
    images = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(loaded.model(images).logits, original.model(images).logits)
    answer("export", copy, tmp_path / "again")
    assert "has not stated" in (tmp_path / "again" / "README.md").read_text()
    bare = answer("export", classified[0], tmp_path / "bare", "--no-weights")["run"]
    assert "safetensors" not in Path(bare, "README.md").read_text()


# ------------------------------------------------------------------------------------- data sets


@pytest.fixture(scope="module", params=["cluttered", "mnist2"])
def made(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set") / request.param
    counts = {"train": 12, "validation": 3, "test": 5}
    words = flags(source="digits", canvas=56, out=folder, png=4, **counts)
    succeeded(drawbench("make-data", request.param, *words))
    return folder


def test_croissant_says_what_the_card_says(made):
    content = json.loads((made / croissant.NAME).read_text())
    files = {each["@id"]: each for each in content["distribution"]}
    for name, digest in cards.read(made)["sha256"].items():
        assert files[name]["sha256"] == digest
        assert files[name]["contentSize"] == f"{(made / name).stat().st_size} B"
    (parts,) = content["recordSet"]
    assert [each["parts/images"] for each in parts["data"]] == [12, 3, 5]


@pytest.mark.filterwarnings("ignore")
def test_croissant_is_valid(made, caplog):
    mlcroissant = pytest.importorskip("mlcroissant")
    data = mlcroissant.Dataset(jsonld=made / croissant.NAME)
    assert not data.metadata.issues.errors and not data.metadata.issues.warnings
    assert "not standard" not in caplog.text
    assert len(list(data.records("parts"))) == 3


def test_croissant_is_added_to_a_set_of_an_earlier_version(made):
    before = json.loads((made / croissant.NAME).read_text())
    (made / croissant.NAME).unlink()
    counts = {"train": 12, "validation": 3, "test": 5}
    words = flags(source="digits", canvas=56, out=made, **counts)
    succeeded(drawbench("make-data", made.name, *words))
    after = json.loads((made / croissant.NAME).read_text())
    assert after | {"datePublished": ""} == before | {"datePublished": ""}


def test_pictures_are_the_arrays_and_lie_in_folders_of_classes(made):
    with open(made / "png" / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["part"] for row in rows] == ["train"] * 4 + ["validation"] * 3 + ["test"] * 4
    for row in rows:
        path = Path(row["file"])
        part, number = stored.load(made, row["part"]), int(path.stem)
        assert (np.array(Image.open(made / "png" / path)) == part.images[number]).all()
        label = "-".join(map(str, np.atleast_1d(part.labels[number])))
        assert path.parts[:2] == (row["part"], label) and row["label"] == label
        boxes = [list(map(int, box.split())) for box in row["boxes"].split(";")]
        assert boxes == part.boxes[number].tolist()
    assert len(list((made / "png").rglob("*.png"))) == len(rows)
    counts = {"train": 12, "validation": 3, "test": 5}
    words = flags(source="digits", canvas=56, out=made, png=2, **counts)
    failed(drawbench("make-data", made.name, *words), "holds pictures already")


def test_torchvision_reads_the_pictures(made):
    from torchvision.datasets import ImageFolder

    folder = ImageFolder(made / "png" / "test")
    names = [folder.classes[label] for _, label in folder.samples]
    assert len(names) == 4 and all(re.fullmatch(r"\d(-\d)?", name) for name in names)


def test_a_loader_gives_batches_of_the_stored_arrays(made):
    part, digits = stored.load(made, "train"), 2 if made.name == "mnist2" else 1
    data = GeneratedDataset(made, boxes=True)
    images, labels, boxes = next(iter(DataLoader(data, batch_size=12)))
    assert images.dtype == torch.float32 and images.shape == (12, 1, 56, 56)
    assert torch.equal((255 * images[:, 0]).round().to(torch.uint8), torch.from_numpy(part.images))
    assert labels.tolist() == part.labels.tolist() and boxes.tolist() == part.boxes.tolist()
    assert (labels.dtype, boxes.shape) == (torch.int64, (12, digits, 4))
    top, left, height, width = boxes[0, 0]
    assert images[0, 0, top : top + height, left : left + width].max() > 0.5


def test_a_transform_gets_the_stored_pixels(made):
    data = GeneratedDataset(made, "test", transform=lambda image: image.float().mean())
    mean, label = data[2]
    assert mean == data.images[2].float().mean() and label.tolist() == data.labels[2].tolist()
    assert (len(data), data.classes, data.card["seed"]) == (5, tuple("0123456789"), 0)


def test_a_wrong_folder_or_part_is_one_sentence(made, tmp_path):
    with pytest.raises(Problem, match="train, validation, test, not 'tset'"):
        GeneratedDataset(made, "tset")
    with pytest.raises(Problem, match="holds no data set"):
        GeneratedDataset(tmp_path)
