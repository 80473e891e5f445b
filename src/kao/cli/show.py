"""`kao show`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kao.errors import ConfigError, KaoError, near_miss

if TYPE_CHECKING:
    from kao.runs import Run

FILES = {
    "forward": "forward.png",
    "reverse": "reverse.png",
    "process": "process.png",
    "schedule": "schedule.png",
    "gif": "denoising.gif",
}
"""What can be drawn, and the file that it goes into."""

BY_THE_MODEL = frozenset({"reverse", "process", "gif"})
"""Those that change with the model."""


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[forward] [reverse] [process] [schedule] [gif]",
            help="What to draw; everything if nothing is named.",
            show_default=False,
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Pictures in process and gif.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and of the choice.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to; default: RUN/pictures.")
    ] = None,
) -> None:
    """Draw what happens inside: noising, denoising, what the network sees, the schedule.

    forward   real pictures at 0, 25, 50, 75 and 99 % of the noise
    reverse   the way back at the same places, and the picture predicted there
    process   the whole denoising of six pictures
    schedule  alpha, sigma and log-SNR over time
    gif       the denoising as an animation

    Example: kao show runs/mine process --n 6
    """
    from kao.cli.console import say
    from kao.runs import Run
    from kao.runs.run import PICTURES

    kinds = what or list(FILES)
    if unknown := [kind for kind in kinds if kind not in FILES]:
        raise ConfigError(
            f'kao show cannot draw "{unknown[0]}"{near_miss(unknown[0], FILES)}; it can draw: '
            f"{', '.join(FILES)}."
        )
    opened = Run.open(run)
    folder = out or opened.path / PICTURES
    for kind, draw in drawings(opened, folder, n=n, seed=seed).items():
        if kind not in kinds:
            continue
        try:
            say(str(draw()))
        except KaoError as error:
            # With everything asked for, a run whose pictures stayed elsewhere still shows the rest.
            if what:
                raise
            say(f"Left out {kind}: {error}")


def drawings(run: "Run", folder: Path, *, n: int, seed: int) -> dict[str, Callable[[], Path]]:
    """The figures of a run, by name; each is drawn when called and says where it went."""
    from functools import cache

    import torch
    from torch import Tensor

    from kao.cli.sample import load_denoiser
    from kao.diffusion import Denoise, Denoiser, Sampler, seeds_of
    from kao.pixels import to_float
    from kao.reports import figures
    from kao.runs.pictures import some_real
    from kao.visualisation import save_picture

    config = run.config
    size = config.data.size
    seeds = seeds_of(seed, range(n))

    @cache
    def denoiser() -> Denoiser:
        return load_denoiser(run)

    def path() -> tuple[Denoise, Sampler, Tensor]:
        """What a trajectory follows."""
        model = denoiser()
        return config.clip(model), config.sampling.sampler, config.times(model.schedule)

    def on() -> torch.device:
        return next(denoiser().parameters()).device

    def forward() -> Path:
        images = to_float(some_real(config, n=4, seed=seed))
        strip = figures.forward_strip(config.schedule.build(), images, seed=seed)
        return save_picture(strip, folder / FILES["forward"])

    def reverse() -> Path:
        strip = figures.reverse_strip(*path(), size=size, seeds=seeds[:4], device=on())
        return save_picture(strip, folder / FILES["reverse"])

    def process() -> Path:
        strips = figures.process_strips(*path(), size=size, seeds=seeds, device=on())
        return save_picture(strips, folder / FILES["process"])

    def schedule() -> Path:
        plot = figures.schedule_plot({run.path.name: config.schedule.build()})
        return save_picture(plot, folder / FILES["schedule"])

    def gif() -> Path:
        file = folder / FILES["gif"]
        return figures.denoising_gif(*path(), file, size=size, seeds=seeds, device=on())

    return dict(zip(FILES, (forward, reverse, process, schedule, gif), strict=True))
