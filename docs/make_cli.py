"""Write docs/api/cli.md: what `--help` says, for every command.

python docs/make_cli.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from kao.cli import app

PAGE = Path(__file__).parent / "api" / "cli.md"
WIDTH = 100

HEAD = """\
# Command line

What `--help` says of every command; `python docs/make_cli.py` writes this page. A mistake is
answered in one line with exit code 2, and `--traceback` shows the rest. Ctrl-C while training
saves first; [Taking up a run](../resuming.md) has all exit codes.
"""


def helps(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, str]]:
    """(words, help text) of a command and of those below it, in the order of the program.

    Commands and contexts are typer's own, which it keeps out of its interface.
    """
    context = command.make_context(
        name,
        [],
        parent=parent,
        resilient_parsing=True,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
    )
    yield context.command_path, command.get_help(context)
    if isinstance(command, typer.core.TyperGroup):
        for below in command.commands:
            yield from helps(command.commands[below], below, context)


def text() -> str:
    """The page."""
    parts = [HEAD]
    for words, said in helps(typer.main.get_command(app), "kao"):
        words = words.replace("{RUN}", "RUN")
        parts.append(f"## {words}\n\n```text\n{said.strip()}\n```\n")
    return "\n".join(parts)


def main() -> None:
    """Write it."""
    PAGE.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
