import dataclasses
import itertools

import pytest

from drawbench import config
from drawbench.config import Classify, MakeData, SceneData
from drawbench.errors import Problem


def test_a_configuration_survives_the_way_through_json():
    changed = config.replace(Classify(), glimpses=4, canvas=60, steps=7, average=0)
    assert config.from_dict(config.to_dict(changed)) == changed
    assert (changed.model.glimpses, changed.data.canvas, changed.training.steps) == (4, 60, 7)


def test_given_goes_before_recipe_goes_before_default():
    merged = config.merge(Classify, {"model": {"glimpses": 3, "patch": 6}}, {"glimpses": 5})
    assert (merged.model.glimpses, merged.model.patch, merged.model.hidden) == (5, 6, 256)


def test_the_order_of_settings_does_not_matter():
    given = {"glimpses": 2, "canvas": 40, "seed": 3}
    made = {
        config.merge(Classify, {}, dict(order)) for order in itertools.permutations(given.items())
    }
    assert len(made) == 1


def test_names_are_unique_across_sections():
    for kind in config.TASKS.values():
        names = [
            field.name
            for section in config.sections(kind).values()
            for field in dataclasses.fields(section)
        ]
        assert len(names) == len(set(names))


def test_every_setting_explains_itself():
    for kind in config.TASKS.values():
        assert all(field.metadata["help"].endswith(".") for field in config.settings(kind).values())


@pytest.mark.parametrize("name", config.recipes())
def test_every_packaged_recipe_is_valid(name):
    sections = config.load_recipe(name)
    config.merge(config.TASKS[sections.pop("task")], sections, {})


@pytest.mark.parametrize(
    "recipe, words",
    [
        (
            {"model": {"glimpse": 8}},
            "unknown key 'glimpse' in section [model]; did you mean 'glimpses'?",
        ),
        ({"modle": {}}, "unknown section 'modle'; did you mean 'model'?"),
        ({"model": 3}, "model must be a section"),
        ({"model": {"glimpses": "8"}}, "glimpses must be int, got '8'"),
        ({"model": {"glimpses": True}}, "glimpses must be int, got True"),
        ({"model": {"glimpses": 0}}, "glimpses must be at least 1, got 0"),
        ({"model": {"window_map": "bonded"}}, "did you mean 'bounded'?"),
        ({"training": {"learning_rate": float("nan")}}, "learning_rate must be a number, got nan"),
        ({"training": {"steps": 1.5}}, "steps must be int or nothing, got 1.5"),
        ({"data": {"canvas": 10**9}}, "canvas must be at most 4096"),
    ],
)
def test_mistakes_are_named(recipe, words):
    with pytest.raises(Problem) as problem:
        config.merge(Classify, recipe, {})
    assert words in str(problem.value)


def test_whole_numbers_pass_for_floats():
    assert config.merge(Classify, {"training": {"epochs": 3}}, {}).training.epochs == 3.0


@pytest.mark.parametrize(
    "values", [None, [], {"task": "dance"}, {}, {"task": "classify", "model": []}]
)
def test_a_foreign_configuration_is_refused(values):
    with pytest.raises(Problem):
        config.from_dict(values)


@pytest.mark.parametrize(
    "text, words",
    [
        ("glimpses = ", "not valid TOML"),
        ("\x00", "not valid TOML"),
        ("[" * 100_000, "not valid TOML"),
    ],
)
def test_a_broken_recipe_is_one_sentence(tmp_path, text, words):
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(Problem, match=words):
        config.load_recipe(str(path))


def test_a_recipe_that_is_not_there_names_those_that_are():
    with pytest.raises(Problem, match="did you mean 'cluttered-100'"):
        config.load_recipe("clutered-100")


def test_sections_are_checked_when_made():
    with pytest.raises(Problem, match="canvas must be at least 28"):
        SceneData(canvas=27)
    assert MakeData().data.canvas == 100
