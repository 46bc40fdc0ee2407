"""The README's example runs, and what it names is there."""

import re
import runpy
from pathlib import Path

import drawbench
from drawbench import config
from drawbench.cli import COMMANDS

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_runs(tmp_path, capsys):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[
        0
    ]  # test_own_model runs the other one
    (tmp_path / "example.py").write_text(code)
    runpy.run_path(str(tmp_path / "example.py"))
    assert "% wrong, 95 % interval" in capsys.readouterr().out


def test_every_command_and_recipe_named_exists():
    assert set(re.findall(r"drawbench ([a-z-]+)", README)) >= set(COMMANDS)
    assert set(re.findall(r"--recipe ([a-z]\S*[a-z0-9])", README)) <= set(config.recipes())


def test_every_public_name_can_be_had():
    for name in drawbench.__all__:
        assert getattr(drawbench, name) is not None
