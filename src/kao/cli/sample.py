"""`kao sample`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kao.errors import ConfigError

if TYPE_CHECKING:
    from kao.config import RunConfig
    from kao.diffusion import Denoiser
    from kao.runs import Run


def sample(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[sampling.key=value ...]",
            help="Changes to how the run draws: sampling.sampler.eta=0.5.",
            show_default=False,
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many pictures.")] = 64,
    sampler: Annotated[
        str | None, typer.Option(help="ddim, dpm++2m, unipc, heun, ddpm and others.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps from noise to picture.")] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1, help="Network calls a picture; takes what kao tune-sampler found best for them."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Picture i of a seed is always the same.")] = 0,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Draw this class; may be given again, for classes in turn.  Default: all, in "
            "the shares of the pictures that were learned from.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="ema (averaged), model (raw), best-score (best while training), or of kao ema: "
            "best, w0.10.",
        ),
    ] = "ema",
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 64,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write PNGs here.")] = None,
    grid: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one PNG grid.")] = None,
    columns: Annotated[
        int | None, typer.Option(min=1, help="Pictures a row of the grid; default: near-square.")
    ] = None,
    npz: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one array, uint8 (n, S, S, 3).")
    ] = None,
) -> None:
    """Draw pictures with a trained model: PNGs, a grid, an array, or all of them.

    Example: kao sample runs/mine --n 64 --seed 0 --steps 50 --out drawn/ --grid drawn.png

    A run that was trained with conditions.classes=true draws the class that is asked for.

    Example: kao sample runs/mine --class cat --class dog sampling.guidance.scale=2

    Without --out, --grid or --npz a grid goes into RUN/pictures/.  Started by torchrun, the
    processes share the work, and the files are the same.
    """
    import torch

    from kao.cli.console import bar, say
    from kao.cli.outputs import Output, check_outputs
    from kao.files import save_npz
    from kao.machine import device
    from kao.processes import join
    from kao.runs import Run, draw
    from kao.runs.averages import known_name
    from kao.runs.budgets import load_budget, outdated
    from kao.runs.classes import labels_of
    from kao.runs.run import PICTURES
    from kao.visualisation import grid as lay_out
    from kao.visualisation import save_picture, save_pictures

    if weights not in ("ema", "model") and not (known_name(weights) or weights.startswith("ema-")):
        raise ConfigError(
            f'--weights = "{weights}"; expected ema or model, or what kao ema made: best, or a '
            f"width such as w0.10; a run that was scored has best-score, too."
        )
    if budget is not None and (sampler or steps or overrides):
        raise ConfigError(
            "--budget chooses sampler, grid and steps by itself: leave --sampler, --steps and "
            "sampling.key=value out, or leave --budget out."
        )
    opened = Run.open(run)
    if grid is None and npz is None and out is None:
        grid = opened.path / PICTURES / f"grid-seed{seed}.png"
    check_outputs(
        Output("--out", out, "the folder of pictures"),
        Output("--grid", grid, "the grid", ".png"),
        Output("--npz", npz, "the array", ".npz"),
    )
    if budget is not None:
        config = opened.drawing(load_budget(opened, budget))
        if note := outdated(opened):
            say(note)
    else:
        config = sampling_changed(opened, overrides or [], sampler=sampler, steps=steps)
    labels_of(config.conditions, (), classes=class_ or ())  # refuses others before weights load
    processes = join(device())
    denoiser = load_denoiser(opened, weights=weights)

    drawn: list[torch.Tensor] = []  # only what is needed in one piece
    count = 0
    with bar() as progress:
        task = progress.add_task("drawing", total=n, figures="")
        indices = range(n)
        for pictures in draw(
            denoiser,
            config,
            indices=indices,
            classes=class_ or (),
            seed=seed,
            batch=batch,
            processes=processes,
        ):
            if out is not None:  # packing PNGs takes its time, so each process does its share
                mine = processes.rows(len(pictures))
                names = [f"{count + i:06d}" for i in range(mine.start, mine.stop)]
                save_pictures(pictures[mine], out, names=names)
            count += len(pictures)
            if processes.main and (grid is not None or npz is not None):
                drawn.append(pictures)
            progress.update(task, advance=len(pictures))
    processes.wait()
    if out is not None:
        say(f"{n} pictures in {out}")
    if not drawn:
        return
    images = torch.cat(drawn)
    if npz is not None:
        save_npz(npz, images.permute(0, 2, 3, 1).numpy())
        say(f"array {tuple(images.permute(0, 2, 3, 1).shape)} in {npz}")
    if grid is not None:
        save_picture(lay_out(images, columns=columns), grid)
        say(f"grid of {n} in {grid}")


def sampling_changed(
    run: "Run", overrides: list[str], *, sampler: str | None = None, steps: int | None = None
) -> "RunConfig":
    """The run's configuration with changes to [sampling].

    Raises:
        ConfigError: A change is to something else, or does not fit.
    """
    from dataclasses import replace

    from kao.config import Request, dump, leaves
    from kao.config.sampling import stepped_by

    flags: dict[str, Any] = {}
    if sampler is not None:
        flags["sampler"] = {"kind": sampler}
    if steps is not None:
        flags["steps"] = steps
    request = Request.of(None, overrides, {"sampling": flags})
    if strange := [key for key in leaves(request.table) if not key.startswith("sampling")]:
        raise ConfigError(
            f"{strange[0]} cannot be changed when drawing, only keys of [sampling] can: train "
            f"another run with it."
        )
    config = run.config
    asked = request.over(dump(config)).sampling
    # Grid and steps of a solver suit no sampler of first order; what is asked for goes over both.
    way = stepped_by(asked.sampler, config.sampling, config.schedule.build())
    return run.drawing(request.over(dump(replace(config, sampling=way))).sampling)


def load_denoiser(run: "Run", *, weights: str = "ema") -> "Denoiser":
    """The run's model, with a word on damaged checkpoints passed over and averages left behind."""
    from kao.cli.console import say
    from kao.runs.averages import facts_of, known_name, place

    checkpoint, damages = run.checkpoint()
    for damage in damages:
        say(f"{damage}: drawing with {checkpoint.path.name} instead.")
    if made := known_name(weights):
        images = facts_of(run.path, made).images
        if images != checkpoint.images:
            say(
                f"{place(run.path, made)} is of {images:,} images, the newest checkpoint of "
                f"{checkpoint.images:,}."
            )
    return run.denoiser(checkpoint, weights=weights)
