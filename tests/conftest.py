"""Shared by all tests."""

from pathlib import Path

import commands
import pytest
import torch
from click.testing import Result


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors gain nothing from several threads, and a busy machine loses much; it also fixes
    the order of float sums.
    """
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def datasets(tmp_path_factory) -> Path:
    """A folder in which the first run makes the tiny data set, once for all tests."""
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="session")
def classified(tmp_path_factory, datasets) -> tuple[Path, Result]:
    """A finished classifier, without figures, and what it said."""
    folder = tmp_path_factory.mktemp("runs")
    places = commands.flags(runs=folder, run="tiny", datasets=datasets)
    result = commands.drawbench("classify", *commands.tiny(), *places, "--json")
    return folder / "tiny", result


@pytest.fixture(scope="session")
def generated(tmp_path_factory, datasets) -> tuple[Path, Result]:
    """A finished generator with its figures, and what its command printed."""
    folder = tmp_path_factory.mktemp("runs")
    places = commands.flags(runs=folder, run="tiny", datasets=datasets)
    words = commands.tiny(commands.GENERATOR, figures=True)
    return folder / "tiny", commands.drawbench("generate", *words, *places, "--json")


@pytest.fixture
def place(tmp_path, datasets, monkeypatch) -> list[str]:
    """Options that keep what a command writes in the test's folder."""
    monkeypatch.chdir(tmp_path)  # what an option fails to catch must not land in the checkout
    return commands.flags(runs=tmp_path / "runs", datasets=datasets)
