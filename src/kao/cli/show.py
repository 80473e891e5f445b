"""`kao show`."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kao.errors import ConfigError, KaoError, near_miss

if TYPE_CHECKING:
    from kao.config import RunConfig
    from kao.diffusion import NoiseSchedule
    from kao.runs import Run

FILES = {
    "forward": "forward.png",
    "reverse": "reverse.png",
    "process": "process.png",
    "schedule": "schedule.png",
    "gif": "denoising.gif",
    "times": "times.png",
    "trajectory": "trajectory.png",
    "neighbours": "neighbours.png",
}
"""What can be drawn, and the file that it goes into."""

BY_THE_MODEL = frozenset({"reverse", "process", "gif", "times", "trajectory", "neighbours"})
"""Those that change with the model."""

WHEN_NAMED = frozenset({"trajectory", "neighbours"})
"""Those that are drawn only when they are named: they answer a question, and take longer."""

SCHEDULE = "schedule"
"""As the first word: compare schedules, with or without runs."""

_COLUMNS = 6


def show(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help='A run directory; or the word "schedule".')
    ],
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[forward] [reverse] [process] [schedule] [gif] [times] [trajectory] "
            "[neighbours]",
            help="What to draw; all but the last two if nothing is named.",
            show_default=False,
        ),
    ] = None,
    n: Annotated[
        int, typer.Option("--n", "-n", min=1, help="Pictures in process, gif, neighbours.")
    ] = 6,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Neighbours of each.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and of the choice.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE",
            help="Where to: a folder, or the file of one figure; default: RUN/pictures.",
        ),
    ] = None,
) -> None:
    """Draw what happens inside: noising, denoising, what the network sees, the schedule.

    \b
    forward     real pictures at 0, 25, 50, 75 and 99 % of the noise
    reverse     the way back at the same places, and the picture predicted there
    process     the whole denoising of six pictures
    schedule    alpha, sigma and log-SNR over time, and where training times fall
    gif         the denoising as an animation
    times       the learned density of training times, where a run learns it
    trajectory  how the path bends, and when the picture is decided
    neighbours  samples beside the training pictures nearest to them

    Example: kao show runs/mine process --n 6

    Schedules side by side, into schedule.png here: names, names with options, and runs; all
    there are if none is named.  (A run in a folder called schedule is ./schedule.)

    Example: kao show schedule cosine linear:zero_terminal_snr=true flow:shift=-2.2 runs/mine
    """  # noqa: D301 (a backspace, which keeps the lines of the list apart)
    from kao.cli.console import say
    from kao.runs import Run
    from kao.runs.run import PICTURES

    if run == SCHEDULE:
        say(str(compare_schedules(what or [], out)))
        return
    if unknown := [kind for kind in what or [] if kind not in FILES]:
        raise ConfigError(
            f'kao show cannot draw "{unknown[0]}"{near_miss(unknown[0], FILES)}; it can draw: '
            f"{', '.join(FILES)}."
        )
    opened = Run.open(run)
    for kind, draw in drawings(
        opened, out or opened.path / PICTURES, n=n, k=k, seed=seed, kinds=what
    ).items():
        try:
            say(str(draw()))
        except KaoError as error:
            # With everything asked for, a run whose pictures stayed elsewhere still shows the rest.
            if what:
                raise
            say(f"Left out {kind}: {error}")


def drawings(
    run: "Run",
    out: Path,
    *,
    n: int,
    seed: int,
    k: int = 5,
    kinds: Sequence[str] | None = None,
) -> dict[str, Callable[[], Path]]:
    """The figures of a run, by name; each is drawn when called and says where it went.

    Args:
        run: The run.
        out: A folder; or a file, where one figure alone is asked for.
        n: Pictures in process, gif and neighbours; trajectory shows six at most.
        seed: Of the noise and of the choice of real pictures.
        k: Neighbours of each picture.
        kinds: Of `FILES`; None or none for all that the run has, but those of `WHEN_NAMED`.

    Raises:
        ConfigError: As `places`.
        OutputError: As `places`.
    """
    from functools import cache

    import torch
    from torch import Tensor

    from kao.cli.console import say
    from kao.cli.sample import load_denoiser
    from kao.config import RunConfig
    from kao.diffusion import Denoise, Denoiser, Sampler, seeds_of
    from kao.metrics.neighbours import compare
    from kao.pixels import to_float
    from kao.reports import figures, paths
    from kao.reports.neighbours import neighbours_sheet
    from kao.reports.schedules import schedule_plot
    from kao.reports.times import times_plot
    from kao.runs.classes import labels_of
    from kao.runs.pictures import some_real
    from kao.runs.run import draw, guided
    from kao.visualisation import save_picture

    config = run.config
    size = config.data.size
    seeds = seeds_of(seed, range(n))
    chosen = [kind for kind in FILES if kind in (kinds or _unasked(config))]
    files = places(out, chosen)

    @cache
    def denoiser() -> Denoiser:
        return load_denoiser(run)

    @cache
    def drawing() -> RunConfig:
        return run.drawing()

    def path(pictures: int = n) -> tuple[Denoise, Sampler, Tensor]:
        """What the trajectories of so many pictures follow."""
        model, how = denoiser(), drawing()
        denoise = guided(model, how, labels=labels_of(how.conditions, range(pictures)))
        return denoise, how.sampling.sampler, how.times(model.schedule)

    def on() -> torch.device:
        return next(denoiser().parameters()).device

    def forward() -> Path:
        images = to_float(some_real(config, n=4, seed=seed))
        strip = figures.forward_strip(config.schedule.build(), images, seed=seed)
        return save_picture(strip, files["forward"])

    def reverse() -> Path:
        few = seeds[:4]
        strip = figures.reverse_strip(*path(len(few)), size=size, seeds=few, device=on())
        return save_picture(strip, files["reverse"])

    def process() -> Path:
        strips = figures.process_strips(*path(), size=size, seeds=seeds, device=on())
        return save_picture(strips, files["process"])

    def schedule() -> Path:
        name = run.path.resolve().name
        knots = training_knots(run)
        plot = schedule_plot({name: config.schedule.build()}, knots={name: knots} if knots else {})
        return save_picture(plot, files["schedule"])

    def gif() -> Path:
        return figures.denoising_gif(*path(), files["gif"], size=size, seeds=seeds, device=on())

    def times() -> Path:
        learned = run.learned_times()
        knots = learned.knots() if learned else None
        if knots is None:
            raise ConfigError(
                f"{run.path} trains with fixed times, so there is no learned density to draw: "
                f"train with loss.times=loss_moment or loss.times=warped."
            )
        return save_picture(times_plot(config.schedule.build(), knots), files["times"])

    def trajectory() -> Path:
        few = seeds[:_COLUMNS]
        walked = paths.walk(*path(len(few)), size=size, seeds=few, device=on())
        return save_picture(paths.trajectory_plot(walked), files["trajectory"])

    def near() -> Path:
        # As many as there are: a copy is found only among all pictures.
        real = some_real(config, n=sys.maxsize, seed=seed)
        samples = torch.cat(list(draw(denoiser(), drawing(), indices=range(n), seed=seed)))
        compared = compare(samples, real, k=k, seed=seed)
        say(compared.sentence())
        return save_picture(neighbours_sheet(compared), files["neighbours"])

    every = (forward, reverse, process, schedule, gif, times, trajectory, near)
    by_name = dict(zip(FILES, every, strict=True))
    return {kind: by_name[kind] for kind in chosen}


def _unasked(config: "RunConfig") -> set[str]:
    """What is drawn where nothing is named: all that the run has, but those of `WHEN_NAMED`."""
    times = config.loss.times.build(config.schedule.build())
    return set(FILES) - WHEN_NAMED - ({"times"} if times.knots() is None else set())


def places(out: Path, kinds: Sequence[str]) -> dict[str, Path]:
    """Where each figure goes: into a folder, or one figure into the file of that name.

    Args:
        out: A folder, which may be missing; or a file that ends in .png or .gif.
        kinds: Of `FILES`.

    Raises:
        ConfigError: `out` is a file, and several figures or one of the other format are drawn.
        OutputError: As `check_outputs`.
    """
    from kao.cli.outputs import Output, check_outputs

    if out.is_dir() or out.suffix.lower() not in (".png", ".gif"):
        check_outputs(Output("--out", out, "the folder of figures"))
        return {kind: out / FILES[kind] for kind in kinds}
    if len(kinds) > 1:
        raise ConfigError(
            f"--out = {out} is one file, and {len(kinds)} figures are drawn: give a folder, or "
            f"name one figure."
        )
    check_outputs(Output("--out", out, kinds[0], Path(FILES[kinds[0]]).suffix))
    return {kinds[0]: out}


def compare_schedules(words: Sequence[str], out: Path | None) -> Path:
    """Draw schedules side by side, and return the picture's place.

    Args:
        words: "flow", "flow:shift=-1,..." or run directories; none stand for all there are.
        out: A folder or a file; None for schedule.png in the current folder.

    Raises:
        ConfigError: A word is neither, or an option of a schedule is wrong; or as `places`.
        OutputError: As `places`.
        CheckpointError: A directory is no run, or learns its times and has no checkpoint.
    """
    from kao.diffusion import SCHEDULES
    from kao.reports.schedules import schedule_plot
    from kao.runs import Run
    from kao.visualisation import save_picture

    place = places(out or Path(), [SCHEDULE])[SCHEDULE]
    schedules: dict[str, NoiseSchedule] = {}
    knots: dict[str, tuple[float, ...]] = {}
    for word in words or SCHEDULES:
        if word.partition(":")[0] in SCHEDULES or not _is_place(word):
            schedules[word] = schedule_of(word)
            continue
        run = Run.open(word)
        name = run.path.resolve().name
        name = word if name in schedules else name
        schedules[name] = run.config.schedule.build()
        if own := training_knots(run):
            knots[name] = own
    return save_picture(schedule_plot(schedules, knots=knots), place)


def schedule_of(word: str) -> "NoiseSchedule":
    """The schedule that a word names: its name, and after a colon its options.

    Args:
        word: "cosine", "flow:shift=-2.2", "linear:steps=500,zero_terminal_snr=true".

    Raises:
        ConfigError: There is no such schedule or option, or its value is out of range.
    """
    from kao.config.tree import Origin, from_overrides, parse
    from kao.diffusion import SCHEDULES

    name, colon, options = word.partition(":")
    if name not in SCHEDULES:
        raise ConfigError(
            f'There is no schedule and no run directory "{name}"{near_miss(name, SCHEDULES)}; the '
            f"schedules are: {', '.join(SCHEDULES)}."
        )
    settings = options.split(",") if colon else []
    if strange := [setting for setting in settings if "=" not in setting]:
        raise ConfigError(
            f'"{strange[0]}" in "{word}" is no option: write name:key=value,key=value, as in '
            f"linear:steps=500."
        )
    return parse(SCHEDULES[name], from_overrides(settings), Origin(word), SCHEDULE).build()


def training_knots(run: "Run") -> tuple[float, ...] | None:
    """Where on its schedule a run trains, as knots; None for uniform times.

    Raises:
        CheckpointError: The times are learned, and there is no whole checkpoint.
    """
    from kao.diffusion import Uniform
    from kao.reports.times import knots_of

    config = run.config
    if isinstance(config.loss.times, Uniform):
        return None
    return knots_of(run.learned_times() or config.loss.times.build(config.schedule.build()))


def _is_place(word: str) -> bool:
    """Whether a word is meant as a directory."""
    return (bool(word) and Path(word).exists()) or len(Path(word).parts) > 1
