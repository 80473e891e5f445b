"""`kao edit`: what a trained model does to real pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kao.errors import ConfigError

if TYPE_CHECKING:
    from kao.reports.edits import Edited
    from kao.runs.editing import Editor

edit_app = typer.Typer(rich_markup_mode=None, add_completion=False)
"""A group: the run comes first, then what is done to it."""

Pictures = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="PICTURE",
        help="Picture files, folders or ZIP files (the first 4 of each); default: 4 of the run's.",
        show_default=False,
    ),
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Steps of the whole way; default: the run's, or 25.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of the noise and of the choice.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The PNG to write; default: in RUN/pictures."),
]
Gif = Annotated[
    Path | None, typer.Option("--gif", metavar="FILE", help="Film the way into this GIF too.")
]
Iterations = Annotated[
    int, typer.Option(min=0, help="Corrections of each step up; 0: the usual approximation.")
]


@edit_app.callback()
def edit(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
) -> None:
    """Give a model real pictures: recover, vary, complete, join or invert them.

    Pictures are cropped and resized as `kao prepare` does it for the run.

    Example: kao edit runs/mine recover face.jpg --t 100,500,1000
    """
    context.obj = run


@edit_app.command()
def recover(
    context: typer.Context,
    pictures: Pictures = None,
    t: Annotated[
        str | None,
        typer.Option(
            "--t",
            metavar="T,T,...",
            help="Where to start: 1..T on a discrete schedule, on a continuous one "
            "thousandths of its end; default: at 10, 50 and 100 %.",
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(help='"t": denoise from t.  "T": from the end, which is wrong, to see it.'),
    ] = "t",
    steps: Steps = None,
    seed: Seed = 0,
    out: Out = None,
    gif: Gif = None,
) -> None:
    """Noise pictures to time t and denoise them: original, noisy, with beta, with beta-tilde.

    Example: kao edit runs/mine recover face.jpg --t 100,500,1000 --steps 250
    """
    from kao.reports.edits import recovery
    from kao.runs.editing import some_times, time_of

    if start not in ("t", "T"):
        raise ConfigError(
            f'--start = "{start}"; expected t (right) or T (noisy pictures taken for pure noise).'
        )
    editor = _editor(context, steps=steps, out=out, gif=gif)
    schedule = editor.denoiser.schedule
    # The largest is last, as the film shows the last.
    wanted = sorted(_numbers(t, option="--t")) if t is not None else some_times(schedule)
    times = [(f"t = {number:g}", time_of(schedule, number)) for number in wanted]
    edited = recovery(
        editor.denoise,
        editor.choose(pictures or [], seed=seed).images,
        editor.times,
        starts=times,
        seed=seed,
        misled=start == "T",
    )
    _write(editor, edited, "recover" if start == "t" else "recover-from-T", out, gif)


@edit_app.command()
def sdedit(
    context: typer.Context,
    pictures: Pictures = None,
    strength: Annotated[
        str,
        typer.Option(
            metavar="S,S,...",
            help="Parts of the way to noise, each in 0..1; sketches want about 0.85.",
        ),
    ] = "0.5,0.7,0.85",
    steps: Steps = None,
    seed: Seed = 0,
    out: Out = None,
    gif: Gif = None,
) -> None:
    """Draw pictures again from some noise: the more, the less of the original stays.

    Made for sketches and collages (SDEdit, Meng et al. 2022).  The sampler is DDPM's with
    beta-tilde, whatever the run's: a way back that adds no noise keeps flat colours flat.

    Example: kao edit runs/mine sdedit sketch.png --strength 0.6,0.7,0.85
    """
    from kao.diffusion import Ancestral
    from kao.reports.edits import variations

    strengths = sorted(_numbers(strength, option="--strength"))
    for value in strengths:
        if not 0 < value <= 1:
            raise ConfigError(f"--strength = {value:g}; expected shares above 0 and up to 1.")
    editor = _editor(context, steps=steps, out=out, gif=gif)
    edited = variations(
        editor.denoise,
        Ancestral("beta_tilde"),
        editor.choose(pictures or [], seed=seed).images,
        editor.times,
        strengths=strengths,
        seed=seed,
    )
    _write(editor, edited, "sdedit", out, gif)


@edit_app.command()
def inpaint(
    context: typer.Context,
    pictures: Pictures = None,
    mask: Annotated[
        str,
        typer.Option(
            metavar="MASK",
            help="A picture, white where to draw; or a box left,top,right,bottom in shares of "
            "the picture or in pixels of the run's size.",
        ),
    ] = "0.25,0.25,0.75,0.75",
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Completions of each picture.")] = 4,
    jump: Annotated[
        int | None,
        typer.Option(min=1, help="Steps that are gone over again at a time; default: a 25th."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often; 1: not again.")] = 10,
    steps: Steps = None,
    seed: Seed = 0,
    out: Out = None,
    gif: Gif = None,
) -> None:
    """Draw a part of each picture anew, to fit the rest (RePaint, Lugmayr et al. 2022).

    Example: kao edit runs/mine inpaint face.jpg --mask 0.2,0.5,0.8,0.9 --n 6
    """
    from kao.diffusion.editing import resampled
    from kao.reports.edits import completions
    from kao.runs.editing import mask_of

    editor = _editor(context, steps=steps, out=out, gif=gif)
    data = editor.config.data
    drawn = mask_of(mask, size=data.size, crop=data.crop)
    jump = jump or max(1, len(editor.times) // 25)  # 10 of 250 in the paper
    way = resampled(editor.times, jump=jump, repeats=repeats)
    images = editor.choose(pictures or [], seed=seed).images
    edited = completions(
        editor.denoise,
        editor.config.sampling.sampler,
        images,
        drawn.to(images.device),
        way,
        count=n,
        seed=seed,
    )
    _write(editor, edited, "inpaint", out, gif)


@edit_app.command()
def interpolate(
    context: typer.Context,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PICTURE",
            help="Two picture files, or a folder for its first two; default: two of the run's.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Join the first pictures that two seeds draw, instead."),
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Pictures on the way.")] = 8,
    iterations: Iterations = 10,
    steps: Steps = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice.")] = 0,
    out: Out = None,
    gif: Gif = None,
) -> None:
    """Draw the way from one picture to another, through the noises that they come from.

    Example: kao edit runs/mine interpolate --seeds 1,2 --n 8 --gif way.gif
    """
    from kao.diffusion import seeds_of
    from kao.reports.edits import between_pictures, between_seeds

    if seeds is not None and pictures:
        raise ConfigError("--seeds joins drawn pictures, and real ones are named too: give one.")
    ends = None if seeds is None else _two_seeds(seeds)
    editor = _editor(context, steps=steps, out=out, gif=gif, as_drawn=ends is not None)
    if ends is not None:
        edited = between_seeds(
            editor.denoise,
            editor.config.sampling.sampler,
            editor.times,
            size=editor.config.data.size,
            seeds=(seeds_of(ends[0], [0])[0], seeds_of(ends[1], [0])[0]),
            count=n,
            device=editor.device,
        )
    else:
        images = editor.choose(pictures or [], seed=seed, most=2).images
        if len(images) != 2:
            raise ConfigError(
                f"A way joins two pictures, and there are {len(images)}: name two, or --seeds."
            )
        # What was clipped could not be found again.
        edited = between_pictures(
            editor.denoiser, images, editor.times, count=n, iterations=iterations
        )
    _write(editor, edited, "interpolate", out, gif)


@edit_app.command()
def invert(
    context: typer.Context,
    pictures: Pictures = None,
    iterations: Iterations = 10,
    steps: Steps = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the errors as JSON.")] = False,
    out: Out = None,
    gif: Gif = None,
) -> None:
    """Find the noise of pictures (DDIM inversion, Song et al. 2021a), and draw them from it.

    Prints what the way there and back changes: the root mean squared error on [-1, 1], and PSNR.

    Example: kao edit runs/mine invert face.jpg --iterations 10
    """
    import json

    from kao.cli.streams import put
    from kao.diffusion.inversion import psnr
    from kao.reports.edits import inversion

    editor = _editor(context, steps=steps, out=out, gif=gif)
    chosen = editor.choose(pictures or [], seed=seed)
    edited, rms = inversion(editor.denoiser, chosen.images, editor.times, iterations=iterations)
    _write(editor, edited, "invert", out, gif)
    figures = list(zip(chosen.names, rms.tolist(), psnr(rms).tolist(), strict=True))
    if not as_json:
        for name, error, decibels in figures:
            put(f"{name}: RMS {error:.2g}, PSNR {decibels:.1f} dB")
        return
    told = [
        # JSON has no infinity, which is the PSNR of no error.
        {"picture": name, "rms": error, "psnr": decibels if error else None}
        for name, error, decibels in figures
    ]
    about = {"steps": len(editor.times) - 1, "iterations": iterations, "pictures": told}
    put(json.dumps(about, indent=2))


def _editor(
    context: typer.Context,
    *,
    steps: int | None,
    out: Path | None,
    gif: Path | None,
    as_drawn: bool = False,
) -> "Editor":
    """The run that the command line names, with its model; first, where its edit will go."""
    from kao.cli.outputs import Output, check_outputs
    from kao.cli.sample import load_denoiser
    from kao.runs import Run
    from kao.runs.editing import Editor
    from kao.runs.run import PICTURES

    run = Run.open(context.obj)
    check_outputs(
        Output("--out", out or run.path / PICTURES / "edit.png", "the sheet", ".png"),
        Output("--gif", gif, "the film", ".gif"),
    )
    return Editor.of(run, run.drawing(), load_denoiser(run), steps=steps, as_drawn=as_drawn)


def _write(
    editor: "Editor", edited: "Edited", kind: str, out: Path | None, gif: Path | None
) -> None:
    """Write the sheet, and the film where one is wanted; say where they are."""
    from kao.cli.console import say
    from kao.runs.run import PICTURES
    from kao.visualisation import gif as write_gif
    from kao.visualisation import save_picture

    place = out or editor.run.path / PICTURES / f"edit-{kind}.png"
    say(str(save_picture(edited.sheet, place)))
    if gif is not None:
        say(str(write_gif(edited.frames, gif, seconds=3.0, hold=2.0, columns=edited.columns)))


def _numbers(text: str, *, option: str) -> list[float]:
    """The numbers of "0.3,0.5"."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f'{option} = "{text}"; expected numbers with commas between them.'
        ) from None


def _two_seeds(text: str) -> tuple[int, int]:
    """The seeds of "1,2"."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise ConfigError(f'--seeds = "{text}"; expected two whole numbers from 0 up, as in 1,2.')
    return int(parts[0]), int(parts[1])
