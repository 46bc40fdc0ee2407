"""Sphinx settings of the documentation: ``make docs``. Nothing in the site needs a network."""

from importlib.metadata import version as installed

from docutils import nodes
from latex2mathml.converter import convert

project, author, copyright = "drawbench", "drawbench contributors", "drawbench contributors"
release = version = installed("drawbench")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "jupyter_execute", "**.ipynb_checkpoints"]
html_theme, html_title = "furo", "drawbench"
html_show_sphinx = False
html_math_renderer = "mathml"  # written into the page; MathJax would have to be fetched

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # the anchors that GitHub gives headings
nb_execution_mode = "off"  # the tests run the notebooks and compare what they print
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True
suppress_warnings = ["myst.header"]  # a page may begin below the first level


def _inline(self, node: nodes.math) -> None:
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _display(self, node: nodes.math_block) -> None:
    self.body.append(f"<p>{convert(node.astext(), display='block')}</p>")
    raise nodes.SkipNode


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
