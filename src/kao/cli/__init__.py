"""The command line: one thin file a command, and here what they share.

Nothing heavy is imported before a command runs: `kao --help` must answer at once.
"""

import os
import sys
from collections.abc import Sequence

import typer

from kao.cli.demo import demo
from kao.cli.prepare import prepare
from kao.cli.report import report
from kao.cli.sample import sample
from kao.cli.show import show
from kao.cli.train import train
from kao.errors import KaoError

INTERRUPTED = 130
"""Exit code after Ctrl-C where there was nothing to save, as shells have it."""

app = typer.Typer(
    name="kao",
    help="Learn to draw faces from a folder of pictures with denoising diffusion models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, prepare, train, sample, show, report):
    app.command()(command)


@app.callback()
def options(
    traceback: bool = typer.Option(False, "--traceback", help="Show where an error came from."),
) -> None:
    """Options of every command."""
    if traceback:
        os.environ["KAO_TRACEBACK"] = "1"


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: Without the program's name.

    Returns:
        The exit code: 0; 2 for a mistake of the user's, told in one line; 130 after Ctrl-C.
    """
    os.environ.pop("KAO_TRACEBACK", None)
    try:
        code = app(list(arguments), standalone_mode=False, prog_name="kao")
        return code if isinstance(code, int) else 0
    except typer.Exit as exit_:
        return exit_.exit_code
    except typer.TyperException as error:
        return _complain(f"{error.format_message()} See kao --help.", error)
    except KaoError as error:
        return _complain(str(error), error)
    except (KeyboardInterrupt, typer.Abort):
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED


def _complain(message: str, error: Exception) -> int:
    if os.environ.get("KAO_TRACEBACK"):
        raise error
    print(f"kao: {' '.join(message.split())}", file=sys.stderr)
    return 2


def main() -> None:
    """The `kao` command."""
    sys.exit(run(sys.argv[1:]))
