"""The documentation: every block of code is run or marked, and the site builds without a warning.

A block that no test runs has a comment before it that says why: ``<!-- not run: why -->``.
"""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import drawbench, succeeded

DOCS = Path(__file__).parent.parent / "docs"
TESTED_ELSEWHERE = {  # page -> the test that runs its blocks
    "commands.md": "test_readme.py",
    "explained.md": "test_explained.py",
    "python.md": "test_readme.py",
    "speed.md": "test_readme.py",
    "trackers.md": "test_trackers.py",
    "extending.md": "test_extending.py",
    "reliability.md": "torture/__main__.py",
}
PAGES = [page for page in sorted(DOCS.glob("*.md")) if page.name not in TESTED_ELSEWHERE]
LANGUAGES = ("", "python", "text")  # text is no code
BLOCK = re.compile(
    r"(?P<mark><!-- not run: [^>]+ -->\n)?^```(?P<language>[^\n]*)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    page: str
    language: str
    code: str
    marked: bool


def blocks(text: str, page: str = "") -> list[Block]:
    """Return the blocks of code of a page, without directives of the documentation tool."""
    found = [
        Block(page, match["language"].strip(), match["code"], bool(match["mark"]))
        for match in BLOCK.finditer(text)
    ]
    return [block for block in found if not block.language.startswith("{")]


BLOCKS = [block for page in PAGES for block in blocks(page.read_text(), page.name)]
RUN = [block for block in BLOCKS if not block.marked and block.language != "text"]


def test_a_mark_and_a_directive_are_recognised():
    page = "```\na\n```\n\n<!-- not run: slow -->\n```python\nb\n```\n\n```{toctree}\nc\n```\n"
    assert blocks(page) == [Block("", "", "a\n", False), Block("", "python", "b\n", True)]


def test_only_known_languages_are_used():
    assert {block.language for block in BLOCKS} <= set(LANGUAGES)
    assert {block.page for block in RUN} >= {"getting-started.md", "window.md"}


def test_the_other_pages_have_their_tests():
    for page, test in TESTED_ELSEWHERE.items():
        assert (DOCS / page).is_file() and (Path(__file__).parent / test).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN, ids=lambda block: block.page)
def test_a_block_runs_in_an_empty_folder(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DRAWBENCH_SOURCES", raising=False)  # a stranger's machine: the small
    for name in ("http_proxy", "https_proxy"):  # digits, and no network
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    if block.language == "python":
        Path("example.py").write_text(block.code)
        runpy.run_path("example.py")
        return
    for line in block.code.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "drawbench", f"only drawbench commands can be run here; mark {line!r}"
        succeeded(drawbench(*words))


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path):
    for package in ("sphinx", "myst_nb", "furo", "latex2mathml"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(DOCS)]
    built = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for page in tmp_path.rglob("*.html"):
        html = page.read_text()
        loaded = re.findall(r"<(?:script|img|link)\b[^>]*?(?:src|href)=\"([^\"]+)", html)
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], page
        for link in re.findall(r"<a\b[^>]*?href=\"([^\"#?]+)", html):
            inside = not re.match(r"[a-z]+:", link)
            assert not inside or (page.parent / link).exists(), f"{page} links to {link}"
