"""The command line: one thin file a command, and here what they share.

Nothing heavy is imported before a command runs: `kao --help` must answer at once.
"""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from kao import __version__
from kao.cli.bench import bench
from kao.cli.compare import compare
from kao.cli.demo import demo
from kao.cli.edit import edit_app
from kao.cli.ema import ema
from kao.cli.evaluate import evaluate
from kao.cli.export import export
from kao.cli.finetune import finetune
from kao.cli.import_ import import_
from kao.cli.mistyped import in_words
from kao.cli.prepare import prepare
from kao.cli.push import push
from kao.cli.report import report
from kao.cli.sample import sample
from kao.cli.show import show
from kao.cli.streams import Output, refuse
from kao.cli.train import train
from kao.cli.tune import tune_sampler
from kao.errors import ConfigError, KaoError
from kao.files import at_home

TRACEBACK = "--traceback"

INTERRUPTED = 130
"""Exit code after Ctrl-C where there was nothing to save, as shells have it."""

SHARED = ("train", "finetune", "sample", "evaluate")
"""Commands that several processes share; of any other each would do all and write over the rest."""

app = typer.Typer(
    name="kao",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    demo,
    prepare,
    train,
    finetune,
    sample,
    evaluate,
    compare,
    show,
    report,
    ema,
    bench,
):
    app.command()(command)
app.command("import")(import_)
app.command()(export)
app.command()(push)
app.command("tune-sampler")(tune_sampler)
app.add_typer(edit_app, name="edit")


def _bounded(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, which refuses whole numbers of more than 64 bits as a configuration does.

    A maximum of each option would say the same, and stand in the help of each.
    """

    @functools.wraps(command)
    def checked(**given: Any) -> Any:
        for name, value in given.items():
            if isinstance(value, int) and abs(value) > sys.maxsize:
                raise ConfigError(
                    f"--{name.replace('_', '-')} = {value}; expected a whole number of at most "
                    f"{sys.maxsize:,}."
                )
        return command(**given)

    return checked


for registered in (*app.registered_commands, *edit_app.registered_commands):
    if registered.callback is not None:
        registered.callback = _bounded(registered.callback)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"kao {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: bool = typer.Option(
        False,
        "--version",
        help="Show the version and exit.",
        callback=_print_version,
        is_eager=True,
    ),
    traceback: bool = typer.Option(
        False, TRACEBACK, help="Show where an error came from; may stand anywhere."
    ),
) -> None:
    """Learn to draw faces from a folder of pictures with denoising diffusion models."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1" and context.invoked_subcommand not in SHARED:
        raise ConfigError(
            f"WORLD_SIZE = {processes}, but kao {context.invoked_subcommand} works in one process, "
            f"and only {', '.join(SHARED)} in several: start it without a launcher."
        )


def _from_home(word: str) -> str:
    """A word in which "~/" is written out, as shells do where it comes first, and not in --out=~/x.

    Raises:
        ConfigError: There is no home directory.
    """
    option, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{at_home(value)}" if value.startswith("~/") else word


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: Without the program's name.

    Returns:
        The exit code: 0; 2 for a mistake of the user's, told in one line; 130 after Ctrl-C.
    """
    words = [word for word in arguments if word != TRACEBACK] or ["--help"]
    try:
        code = app([_from_home(word) for word in words], standalone_mode=False, prog_name="kao")
    except typer.Exit as exit_:
        code = exit_.exit_code
    except (typer.TyperException, KaoError) as error:
        if TRACEBACK in arguments:
            raise
        refuse(in_words(error) if isinstance(error, typer.TyperException) else str(error))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:  # Typer makes this code of Ctrl-C, and says nothing
        sys.stderr.write("Stopped.\n")
    return code if isinstance(code, int) else 0


def main() -> None:
    """The `kao` command."""
    output = Output()
    code = run(sys.argv[1:])
    if (lost := output.undelivered()) is not None:
        refuse(lost)
    sys.exit(code or (2 if lost else 0))
