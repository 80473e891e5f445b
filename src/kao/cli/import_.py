"""`kao import`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kao.errors import ConfigError

if TYPE_CHECKING:
    from kao.config import RunConfig
    from kao.exchange import Model


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder, a file, or owner/name on the Hugging Face hub.",
            show_default=False,
        ),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[key=value ...]",
            help="What the files leave open, such as size=64: see docs/weights.md.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run directory; default: runs/<name of SOURCE>."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A branch, a tag or a commit of the hub.")
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Which weights, where there are several, as ema or fp16."
        ),
    ] = "auto",
) -> None:
    """Make a run of a model that somebody published: to draw with, to measure, to fine-tune.

    Example: kao import google/ddpm-celebahq-256 --run runs/celeb

    Reads pipelines of diffusers, and the files of denoising-diffusion-pytorch, improved-diffusion
    and guided-diffusion.
    """
    from kao.cli.console import say
    from kao.config.tree import from_overrides
    from kao.exchange import import_model
    from kao.exchange.located import path_of
    from kao.runs.importing import refuse_occupied, write_run

    facts = from_overrides(words or [])
    for name, value in facts.items():
        if isinstance(value, dict):
            raise ConfigError(
                f'"{name}.{next(iter(value))}" is nothing that a model leaves open: expected a '
                f"name without dots, such as size=64."
            )
    path = Path(os.path.abspath(path_of(source)))  # "." has no name of its own
    home = run or Path("runs") / (path.stem if path.is_file() else path.name)
    if home.resolve() != path:  # a run is none of other people's, and is told so below
        refuse_occupied(home)
    model = import_model(source, revision=revision, weights=weights, facts=facts)
    config = model.config()
    for line in told(model, config):
        say(line)
    write_run(model, home)
    say(f"A run in {home}: kao sample {home}, or kao finetune {home} FACES.")


def told(model: "Model", config: "RunConfig") -> list[str]:
    """What was read, and what is not known of it, a line each.

    Args:
        model: As it was read.
        config: Of the run that it becomes.
    """
    from kao.config import dump

    table = dump(config)
    schedule, target = table["schedule"], table["target"]["kind"]
    chain = f" of {schedule['steps']:,} steps" if "steps" in schedule else ""
    count = sum(tensor.numel() for tensor in model.weights.values())
    classes = f", {len(model.classes)} classes" if model.classes else ""
    variance = ", learned variance" if model.learned_variance else ""
    lines = [
        f"{model.origin}: {table['network']['kind']} with {count:,} numbers, pictures of "
        f"{model.size} x {model.size} pixels{classes}.",
        f"Schedule {schedule['kind']}{chain}, target {target}{variance}.",
        f"Licence of the weights: {model.licence or 'not told; ask their makers'}.",
    ]
    if model.sampling is not None and model.sampling != config.sampling:
        published = dump(model.sampling)
        lines.append(
            f"Its makers draw with {published['sampler']['kind']} in {model.sampling.steps} steps; "
            f"here {table['sampling']['sampler']['kind']} in {config.sampling.steps} is the usual."
        )
    return [*lines, *model.notes]
