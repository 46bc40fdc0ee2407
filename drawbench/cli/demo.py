"""``drawbench demo``."""

from pathlib import Path

import click

from drawbench.cli import options


@click.command(
    epilog="""\b
Examples:
  drawbench demo
  drawbench demo --classifier results/runs/NAME --port 8000
"""
)
@click.option(
    "--classifier",
    type=options.run,
    default="glimpse-8",
    metavar="RUN",
    help="The network that looks.",
)
@click.option(
    "--generator",
    type=options.run,
    default="draw-mnist",
    metavar="RUN",
    help="The network that draws.",
)
@click.option(
    "--captioned",
    type=options.run,
    metavar="RUN",
    help="A network that draws what a caption says.  [default: one of the package, if any]",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of the page.  [default: a free one]"
)
@options.SOURCES
@options.common
def command(
    classifier: Path,
    generator: Path,
    captioned: Path | None,
    port: int | None,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Open a page: draw a digit and watch a network look for it; watch another one draw.

    The page is for this machine alone and needs no network. Needs pip install 'drawbench[demo]'.
    """
    from drawbench import demo
    from drawbench.cli import console

    demo.gradio()  # before seconds are spent on the models
    page = demo.build(classifier, generator, captioned, sources)
    address = demo.launch(page, port, block=False)
    console.emit({"address": address}, f"Open {address} in a browser; Ctrl-C ends it.", as_json)
    page.block_thread()
