"""`kao export`."""

from pathlib import Path
from typing import Annotated

import typer

from kao.errors import ConfigError, near_miss


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    to: Annotated[str, typer.Option(help="diffusers, safetensors or onnx.")],
    out: Annotated[Path, typer.Option(metavar="PATH", help="The file, or a new folder.")],
    weights: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="ema (averaged), model (raw), best-score (best while training), or of kao ema: "
            "best, w0.10.",
        ),
    ] = "ema",
) -> None:
    """Write a trained network for other programs.

    Example: kao export runs/mine --to safetensors --out mine.safetensors

    diffusers: a folder that DDIMPipeline and DDPMPipeline load, of a U-Net on a variance-preserving
    schedule, such as anime-64.  faces-32 and its like fold their pictures, which diffusers cannot;
    docs/weights.md has the keys to train them without.  safetensors: one file with the weights and
    the whole configuration, which kao import reads back.  onnx: a folder with the network, held
    against torch, and a page with a program that draws with it.
    """
    from kao.cli.console import say
    from kao.cli.outputs import Output, check_outputs, refuse_filled
    from kao.exchange.writers import FORMS
    from kao.runs import Run
    from kao.runs.exporting import trained

    if to not in FORMS:
        raise ConfigError(
            f'--to = "{to}"{near_miss(to, FORMS)}; expected {", ".join(FORMS)}, of which '
            f"safetensors takes any network."
        )
    form = FORMS[to]
    opened = Run.open(run)
    check_outputs(Output("--out", out, form.what, form.ending))
    refuse_filled("--out", out)
    if form.slow:
        say(form.slow)
    for note in form.write(trained(opened, weights=weights), out):
        say(note)
    say(f"{form.what} is in {out}")
