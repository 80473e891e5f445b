"""`kao push`."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kao.errors import ConfigError

if TYPE_CHECKING:
    from kao.exchange.card import Facts


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the model: owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Let nobody else see it.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Replace the files of a model that is there.")
    ] = False,
    weights: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="ema (averaged), model (raw), best-score (best while training), or of kao ema: "
            "best, w0.10.",
        ),
    ] = "ema",
    licence: Annotated[
        str, typer.Option(metavar="ID", help="Licence of the weights: cc-by-4.0, mit and others.")
    ] = "",
    data_licence: Annotated[
        str, typer.Option(metavar="TEXT", help="Licence of the pictures it was trained on.")
    ] = "",
    dry_run: Annotated[
        Path | None,
        typer.Option("--dry-run", metavar="DIR", help="Write what would be pushed; push nothing."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Push a model that draws training pictures.")
    ] = False,
) -> None:
    """Push a model to the Hugging Face hub, with a page that says what it is and what to mind.

    Example: kao push runs/mine me/my-faces --data-licence "CC BY 4.0" --dry-run look/

    The page has the scores of these weights with their intervals, how they were trained, whether
    they draw copies of training pictures, and how to use them; beside it are the weights, the
    configuration, a grid of drawn pictures and, of a U-Net, what diffusers loads.  Log in first:
    hf auth login.
    """
    from kao.cli.console import say
    from kao.cli.outputs import Output, check_outputs, refuse_filled
    from kao.exchange.hub import check_hub, check_licence, check_name, push_folder
    from kao.runs import Run
    from kao.runs.exporting import trained
    from kao.runs.publishing import Said, copied, write_model

    if not run.exists() and Path(name).is_dir():
        raise ConfigError(
            f"There is no run directory {run}, and {name} is a folder: the run comes first, as in "
            f"kao push {name} OWNER/NAME."
        )
    opened = Run.open(run)
    check_name(name)
    check_licence(licence)
    if dry_run is not None:
        check_outputs(Output("--dry-run", dry_run, "the folder"))
        refuse_filled("--dry-run", dry_run)
    else:
        check_hub(name)
    given = trained(opened, weights=weights)
    if found := copied(opened, given):
        if not force:
            raise ConfigError(
                f"This model draws its training pictures ({found.rstrip('.')}): nothing was "
                f"pushed; train on more pictures or for less long, or push it with --force."
            )
        say(f"It draws its training pictures, and its page says so: {found}")
    said = Said(name=name, licence=licence, data_licence=data_licence)
    if not data_licence:
        say("The licence of the training pictures is not stated: --data-licence says it.")
    if dry_run is not None:
        _say_left_out(write_model(opened, given, dry_run, said=said))
        say(f"{dry_run} has what would be pushed to {name}; nothing was.")
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model"
        _say_left_out(write_model(opened, given, place, said=said))
        say(f"{push_folder(place, name, private=private, update=update)}")


def _say_left_out(facts: "Facts") -> None:
    """Say why diffusers cannot load the model, where it cannot."""
    from kao.cli.console import say

    if isinstance(facts.diffusers, str):
        say(f"diffusers cannot load it: {facts.diffusers}")
