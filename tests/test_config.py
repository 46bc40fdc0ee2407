"""Configurations: what is accepted, what is refused and why, and what earlier versions stored."""

import json
from pathlib import Path

import pytest

from drawbench import config
from drawbench.config import Classify, Generate, MakeData, MeasureModel
from drawbench.config.tasks import RENAMED
from drawbench.errors import Problem

PUBLISHED = sorted((Path(__file__).parent.parent / "results" / "published").glob("*/config.json"))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (Classify, {"glimpses": 4, "canvas": 60, "steps": 7, "ema_decay": 0}),
        (Classify, {"model": "package.module:network", "arguments": {"gain": 2.5, "deep": True}}),
        (Classify, {"model": "ram", "dataset": "folder", "images": "photos", "scales": 2}),
        (Generate, {"model": "vae", "dataset": "mnist2", "latent": 3}),
        (Generate, {"dataset": "package.module:images", "data_seed": 4}),
        (MakeData, {"dataset": "mnist2", "canvas": 64}),
        (MeasureModel, {"model": "module:network", "dataset": "svhn"}),
    ],
)
def test_a_configuration_survives_json(kind, changes):
    changed = config.replace(kind(), **changes)
    assert config.from_dict(json.loads(json.dumps(config.to_dict(changed)))) == changed
    stored = config.stored_settings(config.to_dict(changed))
    assert {name: stored[name] for name in changes} == changes


def test_flags_go_before_the_recipe_and_the_recipe_before_defaults():
    merged = config.merge(Classify, {"model": {"glimpses": 3, "patch": 6}}, {"glimpses": 5})
    assert (merged.model.glimpses, merged.model.patch, merged.model.hidden) == (5, 6, 256)


def test_the_arguments_of_a_model_are_its_settings():
    stn = config.merge(Classify, {}, {"model": "stn"})
    assert stn.model.arguments == {"patch": 28, "hidden": 256, "supersample": 1, "filters": 20}
    assert config.merge(Classify, {}, {"model": "conv6"}).model.arguments == {}
    given = {"model": "m:f", "arguments": {"gain": 2}}
    merged = config.merge(Classify, {"model": {"model": "m:f", "arguments": {"depth": 3}}}, given)
    assert merged.model.arguments == {"depth": 3, "gain": 2}


@pytest.mark.parametrize("kind", config.TASKS.values())
def test_every_setting_explains_itself_and_names_are_unique_across_sections(kind):
    names = []
    for section in config.sections(kind):
        names += set(vars(getattr(kind(), section))) - {"arguments"}
    assert len(names) == len(set(names))
    for setting in config.settings(kind).values():
        assert setting.help.endswith(".") and setting.role in config.ROLES, setting


def test_settings_know_their_owners_and_defaults():
    settings = config.settings(Classify)
    assert settings["deviation"].owners == ("ram",)
    assert settings["seed"].owners == settings["model"].owners == ()
    assert settings["patch"].defaults["stn"] == 28 and settings["patch"].default == 12
    assert settings["patch"].default_in_words == "12, stn 28"
    assert settings["model"].factory and set(settings["model"].choices) == set(config.CLASSIFIERS)
    assert not config.settings(MakeData)["dataset"].factory
    assert "module:factory" in settings["dataset"].help


@pytest.mark.parametrize("name", config.recipes())
def test_every_packaged_recipe_is_valid(name):
    sections = config.load_recipe(name)
    config.merge(config.TASKS[sections.pop("task")], sections, {})


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"model": {"glimpse": 8}}, "'glimpse' in section [model]; did you mean 'glimpses'?"),
        ({"modle": {}}, "unknown section 'modle'; did you mean 'model'?"),
        ({"model": 3}, "model must be a section"),
        ({"model": {"model": "conv7"}}, "did you mean 'conv6'?"),
        ({"model": {"model": ["draw"]}}, "model must be one of"),
        ({"model": {"glimpses": "8"}}, "glimpses must be int, got '8'"),
        ({"model": {"glimpses": True}}, "glimpses must be int, got True"),
        ({"model": {"glimpses": 0}}, "glimpses must be at least 1, got 0"),
        ({"model": {"window_map": "bonded"}}, "did you mean 'bounded'?"),
        ({"model": {"arguments": {"a": 1}}}, "draw takes no arguments"),
        ({"model": {"model": "m:f", "arguments": 3}}, "arguments must be dict"),
        ({"model": {"model": "m:f", "arguments": {"a": [1]}}}, "argument a of m:f"),
        ({"training": {"learning_rate": float("nan")}}, "learning_rate must be a finite number"),
        ({"training": {"learning_rate": 0}}, "learning_rate must be above 0, got 0"),
        ({"training": {"steps": 1.5}}, "steps must be int or nothing, got 1.5"),
        ({"training": {"steps": 5, "epochs": 1}}, "give one length, not --steps and --epochs"),
        ({"training": {"seed": 10**5000}}, "seed must be below 2^63"),
        ({"training": {"average": 0.9}}, "average is now called ema_decay"),
        ({"training": {"distortion": 0.5}}, "distortion belongs in section [data]"),
        ({"data": {"canvas": 10**9}}, "canvas must be at most 4096"),
    ],
)
def test_mistakes_are_named(recipe, words):
    with pytest.raises(Problem) as problem:
        config.merge(Classify, recipe, {})
    assert words in str(problem.value)


@pytest.mark.parametrize(
    ("kind", "chosen", "setting", "whose"),
    [
        (Classify, {"model": "conv6"}, "deviation", "ram; conv6 has none"),
        (Classify, {}, "scales", "ram; draw has none"),
        (Classify, {"dataset": "svhn"}, "canvas", "cluttered; svhn has none"),
        (Generate, {"model": "vae"}, "glimpses", "draw and aligndraw; vae has none"),
        (
            Generate,
            {"dataset": "cifar10"},
            "source",
            "mnist, mnist2 and captions; cifar10 has none",
        ),
        (Classify, {"model": "m:f"}, "scales", "ram; m:f has none; set its .* --set scales=..."),
    ],
)
def test_a_setting_that_the_chosen_model_or_data_set_lacks_is_refused(kind, chosen, setting, whose):
    given, sections = {**chosen, setting: 2}, {}
    for name, value in given.items():
        sections.setdefault(config.settings(kind)[name].section, {})[name] = value
    for recipe, flags in (({}, given), (sections, {})):
        with pytest.raises(Problem, match=f"^{setting} is a setting of {whose}$"):
            config.merge(kind, recipe, flags)


def test_several_settings_that_a_model_lacks_are_named_together():
    message = (
        "^deviation is a setting of ram, glimpses of draw, eye, affine, random, fixed and ram; "
        "conv6 has neither$"
    )
    with pytest.raises(Problem, match=message):
        config.merge(Classify, {}, {"model": "conv6", "deviation": 0.5, "glimpses": 3})


def test_another_model_on_the_command_line_keeps_what_it_shares_with_the_recipe():
    recipe = {"model": {"model": "ram", "glimpses": 3, "scales": 2}, "training": {"batch": 7}}
    merged = config.merge(Classify, recipe, {"model": "draw"})
    assert merged.model.glimpses == 3 and merged.training.batch == 7
    own = {"model": {"model": "a:b", "arguments": {"depth": 2}}}
    assert config.merge(Classify, own, {"model": "c:d"}).model.arguments == {}


def test_whole_numbers_pass_for_floats():
    epochs = config.merge(Classify, {"training": {"epochs": 3}}, {}).training.epochs
    assert epochs == 3.0 and isinstance(epochs, float)


# ------------------------------------------------------------------------- stored configurations


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_configurations_open(path):
    values = json.loads(path.read_text())
    opened = config.from_dict(values)
    assert opened.model.model == values["model"]["model"]
    renamed = {RENAMED.get(name, name): one for name, one in values["training"].items()}
    assert opened.training.ema_decay == renamed["ema_decay"]
    assert opened.training.checkpoint_every == renamed["checkpoint_every"]
    defaults = type(opened.model)().arguments  # of settings that are younger than the run
    for name, value in opened.model.arguments.items():
        assert values["model"].get(name, defaults[name]) == value
    if "distortion" in values["training"]:
        assert opened.data.distortion == values["training"]["distortion"]
    assert config.from_dict(config.to_dict(opened)) == opened


def test_stored_settings_of_other_models_are_ignored_but_unknown_ones_are_not():
    stored = config.to_dict(config.merge(Classify, {}, {"model": "conv6"}))
    stored["model"] |= {"deviation": 0.5, "glimpses": 8}
    stored["training"]["fixed_train"] = True
    opened = config.from_dict(stored)
    assert opened.model.arguments == {} and opened.data.fixed_train
    stored["model"]["deviations"] = 0.5
    with pytest.raises(Problem, match="unknown setting 'deviations'; did you mean 'deviation'"):
        config.from_dict(stored)


def test_stored_settings_of_another_version_are_kept_for_tables():
    stored = config.to_dict(Classify())
    stored["model"] |= {"scales": 4, "of_another_version": 7}
    settings = config.stored_settings(stored)
    assert settings["of_another_version"] == 7 and "scales" not in settings
    stored["model"]["model"] = "of another version"
    assert config.stored_settings(stored)["model"] == "of another version"


@pytest.mark.parametrize(
    "values", [None, [], {"task": "dance"}, {}, {"task": "classify", "model": []}]
)
def test_a_foreign_configuration_is_refused(values):
    for read in (config.from_dict, config.stored_settings):
        with pytest.raises(Problem):
            read(values)


# ---------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("content", [b"glimpses = ", b"\x00", b"[" * 100_000, b"a = '\xff'"])
def test_a_broken_recipe_is_one_sentence(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(Problem, match="not valid TOML"):
        config.load_recipe(str(path))


def test_a_byte_order_mark_is_allowed(tmp_path):
    path = tmp_path / "windows.toml"
    path.write_bytes(b"\xef\xbb\xbf[model]\r\nglimpses = 3\r\n")
    assert config.load_recipe(str(path)) == {"model": {"glimpses": 3}}


def test_a_missing_recipe_names_the_packaged_ones():
    with pytest.raises(Problem, match="did you mean 'cluttered-100'"):
        config.load_recipe("clutered-100")


def test_a_section_is_checked_when_constructed():
    with pytest.raises(Problem, match="canvas must be at least 28"):
        config.Cluttered(canvas=27)


def test_a_file_with_an_empty_key_is_one_sentence():
    stored = config.to_dict(config.Classify())
    stored["training"][""] = 3
    with pytest.raises(Problem, match="unknown setting ''"):
        config.from_dict(stored)
