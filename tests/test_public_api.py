"""``from drawbench import ...``: typed for editors, lazy at run time."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from mypy import api as mypy

import drawbench

ROOT = Path(__file__).parent.parent


def static_names() -> dict[str, tuple[str, str]]:
    """Return the names in the ``TYPE_CHECKING`` block: their module, and their name there."""
    tree = ast.parse((ROOT / "drawbench" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    return {each.asname: (node.module, each.name) for node in imports for each in node.names}


def test_editors_and_python_see_the_same_names():
    names = static_names()
    assert sorted(names) == drawbench.__all__ == dir(drawbench)
    for public, (module, name) in names.items():
        assert getattr(drawbench, public) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute 'windwo'"):
        drawbench.windwo  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, drawbench; print({'torch', 'numpy', 'click'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.slow
def test_type_checkers_see_functions_and_classes(tmp_path):
    lines = [f"from drawbench import {name}; reveal_type({name})" for name in drawbench.__all__]
    (tmp_path / "program.py").write_text("\n".join(lines))
    words = ["--ignore-missing-imports", "--follow-imports=silent", str(tmp_path / "program.py")]
    out, err, _ = mypy.run(words)
    revealed = [line for line in out.splitlines() if "Revealed type" in line]
    assert len(revealed) == len(lines), out + err
    assert not [line for line in revealed if '"Any"' in line]
    window = revealed[drawbench.__all__.index("window")]
    assert "def (" in window
    assert "drawbench.attention.Window" in window
