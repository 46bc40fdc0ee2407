"""What is uploaded: a wheel made from the sdist, installed and used far from the checkout."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_{}(sys.argv[1]))"
OFFLINE = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}


def built(kind: str, source: Path, out: Path) -> Path:
    """Build ``sdist`` or ``wheel`` from a source tree; return the file."""
    command = [sys.executable, "-c", BUILD.format(kind), str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The sdist of a copy: building leaves folders behind."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("build")
    left_out = shutil.ignore_patterns(".*", "results", "datasets", "build", "*.egg-info", "docs")
    shutil.copytree(ROOT, folder / "checkout", ignore=left_out)
    return built("sdist", folder / "checkout", folder)


@pytest.fixture(scope="module")
def wheel(sdist):
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent, filter="data")
    return built("wheel", sdist.parent / sdist.name.removesuffix(".tar.gz"), sdist.parent)


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    info = wheel.name.rsplit("-", 3)[0] + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"drawbench", info}
    package = {name for name in names if name.startswith("drawbench/")}
    tracked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "drawbench").rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".so", ".dll", ".dylib")
    }
    assert package == tracked
    assert wheel.stat().st_size < 6_000_000


def test_the_metadata_is_complete(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = importlib.metadata.PathDistribution(zipfile.Path(archive, f"{name[:-8]}"))
        about = metadata.metadata
    assert about["Author"] == "drawbench contributors"
    assert about["License-Expression"] == "MIT"
    assert about["Requires-Python"] == ">=3.11"
    assert set(about.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    assert "Typing :: Typed" in about.get_all("Classifier")
    assert about["Home-page"] is None and about.get_all("Project-URL") is None


def test_the_sdist_has_what_a_packager_needs(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "requirements.lock"} <= names
    assert not any(name.startswith(("tests", "results", "datasets/")) for name in names)


def test_the_lock_satisfies_the_requirements():
    text = (ROOT / "requirements.lock").read_text()
    lines = re.findall(r"^([\w.-]+)==([\w.+]+)", text, re.MULTILINE)
    locked: dict[str, list[str]] = {}
    for name, version in lines:
        locked.setdefault(canonicalize_name(name), []).append(version)
    for requirement in map(Requirement, PROJECT["dependencies"]):
        versions = locked[canonicalize_name(requirement.name)]
        assert all(map(requirement.specifier.contains, versions)), requirement
    published = [
        json.loads(path.read_text())["torch"].partition("+")[0]
        for path in ROOT.glob("results/published/*/environment.json")
    ]
    assert locked["torch"] == [max(published, key=published.count)]


# ------------------------------------------------------------------------------ the wheel in use


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment with the wheel; what it needs is taken from the environment outside."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    scheme = {"base": str(home), "platbase": str(home)}
    (site := Path(sysconfig.get_path("purelib", "venv", scheme))).mkdir(parents=True, exist_ok=True)
    outside = [sysconfig.get_path("purelib"), *(p for p in sys.path if "site-packages" in p)]
    (site / "outside.pth").write_text("\n".join(dict.fromkeys(outside)) + "\n")
    scripts = Path(sysconfig.get_path("scripts", "venv", scheme))
    python = next(scripts.glob("python*"))
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*command, "--no-index", "-q", str(wheel)], check=True)
    return scripts


@pytest.fixture(scope="module")
def run(installed, tmp_path_factory):
    """A function that runs the installed program in an empty folder without a network."""
    folder = tmp_path_factory.mktemp("empty")
    hidden = ("PYTHONPATH", "DRAWBENCH_SOURCES")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}

    def call(program: str, *words: str) -> str:
        done = subprocess.run(
            [str(next(installed.glob(f"{program}*"))), *words],
            cwd=folder,
            capture_output=True,
            text=True,
            env=environment | OFFLINE | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    call.folder = folder  # type: ignore[attr-defined]
    return call


@pytest.mark.slow
def test_python_finds_the_installed_package(run, installed):
    code = "import drawbench; print(drawbench.__file__, drawbench.load_pretrained('glimpse-8'))"
    assert str(installed.parent) in run("python", "-c", code)


@pytest.mark.slow
def test_commands_work_in_an_empty_folder(run):
    listed = json.loads(run("drawbench", "models", "--json"))["models"]
    assert {one["name"] for one in listed} >= {"glimpse-8", "draw-mnist"}
    (drawn,) = json.loads(run("drawbench", "plot", "glimpse-8", "--json"))["figures"].values()
    drawn += json.loads(run("drawbench", "generate", "--from", "draw-mnist", "--json"))["figures"]
    tour = ("quickstart", "--steps", "20", "--evaluate-every", "10", "--canvas", "40")
    assert json.loads(run("drawbench", *tour, "--json"))["n"] > 100
    assert len(drawn) >= 10
    assert all((run.folder / path).is_file() for path in drawn)
