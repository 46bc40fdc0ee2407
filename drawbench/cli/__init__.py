"""The command line: the only place that parses or prints.

A command's module is imported when it is called, and torch with it.
"""

import importlib
import re
import sys

import click

from drawbench import distributed
from drawbench.config.fields import nearest
from drawbench.errors import Problem

# name -> one line for the list of commands; the module is drawbench.cli.<name> with "-" as "_".
COMMANDS = {
    "quickstart": "Take the tour on embedded digits: no network, no data, minutes on two cores.",
    "make-data": "Make cluttered or two-digit MNIST.",
    "classify": "Train and test a classifier on cluttered MNIST or your own images.",
    "generate": "Train a network that draws, measure its bound, watch it draw.",
    "evaluate": "Measure a run again, also outside its training conditions; or your own model.",
    "resume": "Continue a run exactly where it stopped.",
    "models": "List the trained models that come with drawbench.",
    "predict": "Classify your own pictures, and show where the network looked.",
    "runs": "List runs with their state and result; show how two of them differ.",
    "plot": "Draw curves, glimpses and animations of runs; explain the attention.",
    "reproduce": "Make a table from nothing: every run behind it, then the table.",
    "tables": "Make the tables and figures of finished runs, from their folders alone.",
    "compare": "Compare two models on the same test images: is the difference chance?",
    "report": "Make one page with tables, figures and animations, to open with a double click.",
    "export": "Copy a finished run to keep or share.",
    "bench": "Measure images per second, against the plain model and the machine's limit.",
    "demo": "Open a page: draw a digit, watch a network look at it; watch another one draw.",
    "doctor": "Show what is installed, what is missing, and how to get it.",
}
SHARED = ("classify", "generate", "evaluate", "resume")  # commands that processes can share
MAX_MESSAGE = 2000  # characters of an error message


class Commands(click.Group):
    """Imports a command's module when it is called; turns problems into a sentence and a status.

    Of several processes that work together, the one that failed first prints the sentence, and its
    exit status is that of all.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(f"drawbench.cli.{name.replace('-', '_')}").command
        _name_variables(command, name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]):
        name = args[0]
        if ctx.resilient_parsing:  # a shell asks for completions
            return super().resolve_command(ctx, args)
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"there is no command {name!r}{nearest(name, COMMANDS)}")
        distributed.join(shared=name in SHARED)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):  # without importing any of them
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except click.ClickException as error:
            distributed.report_failure(error.exit_code)
            if len(error.message) > MAX_MESSAGE:  # it repeats what it was given
                half = MAX_MESSAGE // 2
                vars(error)["message"] = f"{error.message[:half]} ... {error.message[-half:]}"
            raise
        except SystemExit as stop:
            # Recorded now: torch's threads may still abort a process while it ends.
            distributed.report_failure(stop.code if isinstance(stop.code, int) else 1)
            raise
        except KeyboardInterrupt:
            distributed.report_failure(130)
            if ctx.meta.get("drawbench.debug"):
                raise
            run = ctx.meta.get("drawbench.run")
            resume = f" Resume with: drawbench resume {run}" if run else ""
            click.echo(f"Stopped.{resume}", err=True)
            sys.exit(130)
        except Exception as error:
            distributed.report_failure(1)
            if not ctx.meta.get("drawbench.debug"):
                _explain(error)
            raise
        finally:
            distributed.leave()


def _name_variables(command: click.Command, *words: str) -> None:
    """Let an option come from a variable called after its flag where click would take the name of
    its parameter: DRAWBENCH_<COMMAND>_<OPTION>.
    """
    for name, inner in getattr(command, "commands", {}).items():
        _name_variables(inner, *words, name)
    for option in command.params:
        if isinstance(option, click.Option) and option.allow_from_autoenv and not option.envvar:
            flag = max(option.opts, key=len)  # the long one
            variable = "_".join(["drawbench", *words, flag.lstrip("-")])
            option.envvar = re.sub(r"\W", "_", variable).upper()


def _explain(error: Exception) -> None:
    """Raise a `ClickException` with one sentence for an error that a user can meet."""
    if isinstance(error, (Problem, OSError)) and not isinstance(error, BrokenPipeError):
        raise click.ClickException(str(error)) from error
    # torch raises plain RuntimeErrors: "can't allocate memory" on a CPU, "CUDA out of memory".
    told = isinstance(error, RuntimeError) and "memory" in str(error)
    if told or isinstance(error, MemoryError):
        raise click.ClickException(
            "there is not enough memory for this; try a smaller --batch, --hidden or --canvas"
        ) from error


def _show_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from drawbench.files import version_of

        click.echo(f"drawbench {version_of('drawbench')}")
        ctx.exit()


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "DRAWBENCH",
        "max_content_width": 110,
        "show_default": True,
    },
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Train, measure, compare and see visual attention.

    The DRAW paper (Gregor et al. 2015) as a toolkit. Start with: drawbench quickstart
    """


def main() -> None:
    """Run the ``drawbench`` command."""
    try:
        from drawbench.cli import console

        console.reserve_standard_streams()
        cli(prog_name="drawbench")
    except KeyboardInterrupt:  # before or after click, which would have caught it
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
