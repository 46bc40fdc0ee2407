"""The architecture: imports point one way, and CONTRIBUTING.md draws the layers as they are."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "drawbench"
LAYERS = [  # a module may import from those before it, in its own layer or a lower one
    ["errors"],
    ["files", "config", "streams", "user_code"],
    ["records", "published", "pretrained", "studies", "listing"],
    ["attention", "likelihood"],
    ["spatial"],
    ["distributed"],
    ["data", "models"],
    ["fast"],
    ["runs"],
    ["evaluation"],
    ["reporters", "training"],
    ["tables", "figures"],
    ["tasks"],
    ["bench"],
    ["report", "demo"],
    ["cli"],
]
ORDER = [name for layer in LAYERS for name in layer]
ENTRY_POINTS = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
TREES = {
    path: ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
    if path not in ENTRY_POINTS
}
every_module = pytest.mark.parametrize(
    "path", TREES, ids=lambda path: str(path.relative_to(PACKAGE))
)


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name of everything imported, at the top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    """Yield the calls of a plain name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def package_imports(tree: ast.AST) -> set[str]:
    parts = (name.split(".") for name in imports(tree))
    return {part[1] for part in parts if part[0] == "drawbench" and len(part) > 1}


def test_the_walk_finds_every_kind_of_import():
    source = (
        "import os, drawbench.cli\nfrom drawbench import runs, fast\n"
        "def f():\n    from drawbench.data.stored import load\n"
    )
    assert package_imports(ast.parse(source)) == {"cli", "runs", "fast", "data"}


@every_module
def test_imports_point_down(path):
    own = layer_of(path)
    assert own in ORDER, f"{path} belongs to no layer: name it in LAYERS and in CONTRIBUTING.md"
    allowed = ORDER[: ORDER.index(own) + 1]
    above = package_imports(TREES[path]) - set(allowed)
    assert not above, f"{own} must not import from {above}"


@every_module
def test_only_the_command_line_parses_and_prints(path):
    outside = layer_of(path) != "cli"
    assert not (outside and any(calls(TREES[path], "print")))
    assert not (outside and any(name.split(".")[0] == "click" for name in imports(TREES[path])))


@every_module
def test_only_distributed_imports_torch_distributed(path):
    collective = [name for name in imports(TREES[path]) if name.startswith("torch.distributed")]
    assert layer_of(path) == "distributed" or not collective


def models() -> set[str]:
    """Return the names of all classes of models and glimpses."""
    return {
        node.name
        for path, tree in TREES.items()
        if layer_of(path) == "models"
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(
            ast.unparse(base).split(".")[-1] not in ("NamedTuple", "Protocol")
            for base in node.bases
        )
    }


@every_module
def test_no_implementation_is_chosen_by_the_class_of_a_model(path):
    named = {
        word
        for call in calls(TREES[path], "isinstance")
        for word in re.findall(r"\w+", ast.unparse(call.args[1]))
    }
    assert not named & models()


def test_the_models_are_found():
    assert models() >= {"GlimpseClassifier", "GaussianGlimpse", "Draw", "VAE"}


def test_contributing_draws_these_layers():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (picture,) = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    boxes = re.findall(r'(\w+)\["([^"<]*)', picture)
    assert [label.split(", ") for _, label in boxes] == LAYERS
    names = [name for name, _ in boxes]
    arrows = re.findall(r'(\w+)(?:\["[^"]*"\])? --> (\w+)', picture)
    assert arrows == list(itertools.pairwise(names))
