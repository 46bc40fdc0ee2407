"""The command line. The only place that parses or prints; each command's module is imported when it
is called, torch with it.
"""

import importlib
import sys

import click

from drawbench import distributed
from drawbench.errors import Problem

# name -> one line for the list of commands; the module is drawbench.cli.<name> with "-" as "_".
COMMANDS = {
    "quickstart": "The whole tour on embedded digits: no network, no data, minutes on two cores.",
    "make-data": "Make cluttered or two-digit MNIST.",
    "classify": "Train and test a classifier on cluttered MNIST.",
    "generate": "Train a network that draws; measure its bound; watch it draw.",
    "evaluate": "Measure a run again, also outside its training conditions; or your own model.",
    "resume": "Go on with a run exactly where it stopped.",
    "plot": "Curves, glimpses and films of runs; the attention explained.",
    "tables": "The tables and figures of finished runs, from their folders alone.",
    "compare": "Two models on the same test images: the difference, and could it be chance?",
    "report": "One page with tables, figures and films, to open by double click.",
    "export": "Copy a finished run to keep or share.",
    "bench": "Images per second, against the plain model and the machine's limit.",
    "doctor": "What is here, what is missing, and how to get it.",
}
SHARED = (
    "classify",
    "generate",
    "evaluate",
    "resume",
)  # commands that several processes can work on together


LONGEST = 2000  # letters of a sentence


class Commands(click.Group):
    """Loads a command's module when it is called, and turns problems into one sentence and an exit
    status.

    Of several processes that work together, the one that failed first says the sentence, and its
    status is that of all.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        if distributed.size() > 1 and name not in SHARED:
            raise Problem(f"drawbench {name} works in one process; start it without torchrun")
        return importlib.import_module(f"drawbench.cli.{name.replace('-', '_')}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):  # without importing any of them
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context):
        try:
            distributed.join()
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except click.ClickException as error:
            distributed.take_the_word(error.exit_code)
            if len(error.message) > LONGEST:  # it repeats what it was given
                vars(error)["message"] = (
                    f"{error.message[: LONGEST // 2]} ... {error.message[-LONGEST // 2 :]}"
                )
            raise
        except KeyboardInterrupt:
            distributed.take_the_word(130)
            if ctx.meta.get("drawbench.debug"):
                raise
            click.echo("Stopped.", err=True)
            sys.exit(130)
        except Exception as error:
            distributed.take_the_word(1)
            self._explain(error, ctx.meta.get("drawbench.debug", False))
            raise
        finally:
            distributed.leave()

    def _explain(self, error: Exception, debug: bool) -> None:
        """Nothing, if an error is a fault of ours or its traceback is asked for.

        Raises:
            ClickException: it is one that a user can meet; in a sentence.
        """
        if debug or isinstance(error, BrokenPipeError):
            return
        if isinstance(error, (Problem, OSError)):
            raise click.ClickException(str(error)) from error
        # torch says "can't allocate memory" on a CPU and "CUDA out of memory" on a GPU, as plain
        # RuntimeErrors.
        if isinstance(error, MemoryError) or (
            isinstance(error, RuntimeError) and "memory" in str(error)
        ):
            raise click.ClickException(
                "there is not enough memory for this; try a smaller --batch, --hidden or --canvas"
            ) from error


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "DRAWBENCH",
        "max_content_width": 110,
    },
)
@click.version_option(package_name="drawbench", message="%(prog)s %(version)s")
def cli() -> None:
    """Train, measure, compare and see visual attention.

    The DRAW paper (Gregor et al. 2015) as a toolkit. Start with: drawbench quickstart
    """


def main() -> None:
    """The entry point of the ``drawbench`` command."""
    cli(prog_name="drawbench")
