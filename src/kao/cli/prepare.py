"""`kao prepare`."""

from pathlib import Path
from typing import Annotated

import typer


def prepare(
    faces: Annotated[
        str, typer.Argument(metavar="FACES", help="A folder, a zip file, hf:NAME or toy.")
    ],
    size: Annotated[int, typer.Option(help="Side of the prepared pictures, pixels.")] = 32,
    crop: Annotated[
        str,
        typer.Option(help="centre (square), pad (whole picture), none (must be square)."),
    ] = "centre",
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", help="Take this class only; may be given again."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to; default: kao's cache.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Threads; default: one a core.")] = None,
) -> None:
    """Decode and resize pictures once, and say what they are like.

    Example: kao prepare my-faces/ --size 64

    What is prepared is used again until the pictures change; `kao train` calls this by itself.
    """
    from dataclasses import replace

    from kao.cli.streams import put
    from kao.data import open_source
    from kao.data import prepare as prepare_source
    from kao.data.item import Noted
    from kao.data.pictures import check_crop
    from kao.files import readable

    source = open_source(faces, size=size, classes=class_ or ())
    prepared = prepare_source(source, size=size, crop=check_crop(crop), out=out, workers=workers)
    audit = prepared.audit
    if isinstance(source, Noted):  # of today, where a set is used again
        audit = replace(audit, notes=tuple(source.notes))
    put("\n".join(map(readable, [*audit.lines(), str(prepared.path)])))
