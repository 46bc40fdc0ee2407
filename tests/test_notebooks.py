"""The notebooks of the documentation run, and print what is committed."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
MAX_BYTES = 120_000


def printed(cell: dict) -> list[str]:
    """Return what a code cell printed or returned as text; pictures depend on the platform."""
    texts = []
    for output in cell.get("outputs", []):
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        text = text if isinstance(text, str) else "".join(text)
        texts += [text] if not re.match(r"<Figure|<matplotlib", text) else []
    return texts


@every_notebook
def test_the_committed_outputs_are_complete_and_small(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not any(out["output_type"] == "error" for cell in code for out in cell["outputs"])
    assert path.stat().st_size < MAX_BYTES
    assert str(Path.home()) not in path.read_text() and "/tmp" not in path.read_text()


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["attention", "own_model", "runs"]


@pytest.mark.slow
@every_notebook
@pytest.mark.filterwarnings("default")
def test_a_notebook_runs_and_prints_what_is_committed(path, tmp_path, monkeypatch):
    """``DRAWBENCH_NOTEBOOKS=1`` replaces the committed outputs."""
    import os

    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, 4)
    before = [printed(cell) for cell in notebook.cells]
    client(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    if os.environ.get("DRAWBENCH_NOTEBOOKS"):
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
        nbformat.write(notebook, path)
        return
    assert [printed(cell) for cell in notebook.cells] == before
