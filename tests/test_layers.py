"""Imports point one way: a module may import from its own layer or from those before it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "drawbench"
LAYERS = [
    ["errors"],
    ["files", "config", "streams"],
    ["records", "published"],
    ["attention", "likelihood"],
    ["spatial"],
    ["distributed"],
    ["models", "data"],
    ["fast"],
    ["runs"],
    ["evaluation"],
    ["training"],
    ["tasks"],
    ["tables"],
    ["figures", "bench"],
    ["report"],
    ["cli"],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(source: str) -> set[str]:
    """First parts of everything imported from drawbench, at the top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "drawbench"
        ):
            parts = node.module.split(".")[1:]
            names |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {
                alias.name.split(".")[1]
                for alias in node.names
                if alias.name.startswith("drawbench.")
            }
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = layer_of(path)
    assert own in RANK, f"{path} belongs to no layer: name it in LAYERS"
    above = {name for name in imported(path.read_text()) if RANK[name] > RANK[own]}
    assert not above, f"{own} may not import from {above}"


def test_the_walk_finds_every_kind_of_import():
    source = "import drawbench.cli\nfrom drawbench import runs\ndef f():\n    from drawbench.data.store import load\n"
    assert imported(source) == {"cli", "runs", "data"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_prints(path):
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert layer_of(path) == "cli" or not any(call.func.id == "print" for call in calls)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_distributed_imports_torch_distributed(path):
    nodes = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    names = [getattr(node, "module", None) or alias.name for node in nodes for alias in node.names]
    assert path.name == "distributed.py" or not any(
        name.startswith("torch.distributed") for name in names
    )
