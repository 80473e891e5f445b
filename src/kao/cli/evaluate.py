"""`kao evaluate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from kao.errors import ConfigError


def evaluate(
    drawn: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FOLDER|NPZ", help="What to score: a run directory, or drawn pictures."
        ),
    ],
    real: Annotated[
        str | None,
        typer.Option(
            metavar="FACES|FILE.npz",
            help="Real pictures, or a reference made with --save-reference; default: those that "
            "the run learned from.",
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            metavar="FACES",
            help="The pictures that the model was trained on, to find copies; of a run they are "
            "known.",
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(metavar="NAME", help="small-data, ddpm-50k, ddim-table, clean-fid."),
    ] = "small-data",
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Feature space: faces, wavelets, inception, dinov2, clip; may be given again.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Scores; default: those of the protocol."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|SPACE=PATH",
            help="Of the run: ema, model, best-score, best, w0.10; or where a feature network is: "
            "inception=PATH; may be given again.",
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("--n", "-n", min=3, help="Drawn pictures; default: the protocol's."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Side in pixels that pictures in folders are brought to; default: that of the "
            "drawn ones, to which larger real pictures are brought.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps from noise to picture.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddim, dpm++2m, heun and others.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and of every choice.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    save_reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Write the statistics of all real pictures, those spared for the "
            "floor too, to be given to --real.",
        ),
    ] = None,
) -> None:
    """Score drawn pictures against real ones: each score with its interval and its floor.

    Example: kao evaluate runs/mine --n 1000

    Example: kao evaluate drawn/ --real my-faces/ --train my-faces/

    The floor is what other real pictures score, so the best that a model can do.  A run is scored
    from its newest checkpoint, and the scores are kept in RUN/evaluations/ with the protocol they
    were measured by.  Classes that have 50 pictures, drawn and real, have scores of their own.
    Started by torchrun, the processes share the work.
    """
    from kao.cli.console import Bars, bar, say
    from kao.cli.outputs import Output, check_outputs
    from kao.cli.streams import put
    from kao.evaluation import Looking, Plan
    from kao.evaluation.opening import keep_reference, open_spaces
    from kao.evaluation.planning import asked_protocol
    from kao.machine import device
    from kao.processes import join
    from kao.reports.copies import sheets
    from kao.runs import Run
    from kao.runs.evaluating import (
        evaluation_file,
        save_evaluation,
        subject_of_pictures,
        subject_of_run,
    )
    from kao.runs.run import CONFIG
    from kao.visualisation import save_picture

    check_outputs(Output("--save-reference", save_reference, "the reference", ".npz"))
    reference = save_reference.with_suffix(".npz") if save_reference else None
    averages, networks = _weights(weights or [])
    asked = asked_protocol(
        protocol,
        n=n,
        steps=steps,
        sampler=sampler,
        metrics=[word.strip() for word in metrics.split(",")] if metrics is not None else [],
        features=features or [],
    )
    plan = Plan.of(asked)
    run = Run.open(drawn) if (Path(drawn) / CONFIG).is_file() else None
    _check_options(
        drawn,
        of_run=run is not None,
        real=real,
        size=size,
        drawing={"--sampler": sampler, "--steps": steps, "--weights": averages},
    )
    if reference and len(plan.measured) != 1:
        raise ConfigError(
            f"--save-reference keeps one feature space, and scores are measured in "
            f"{', '.join(plan.measured) or 'none'}: choose one with --features."
        )
    processes = join(device())
    subject = processes.by_turns(
        lambda: (
            subject_of_run(
                run,
                asked,
                real=real,
                train=train,
                weights=averages or "ema",
                seed=seed,
                batch=batch,
            )
            if run
            else subject_of_pictures(drawn, real=real or "", train=train, size=size)
        ),
    )
    with bar() as progress:
        bars = Bars(progress)
        spaces = processes.by_turns(
            lambda: open_spaces(
                asked,
                weights=networks,
                tell=say,
                progress=lambda done, total: bars.show("downloading weights", done, total),
            )
        )
        looking = Looking(spaces, device(), batch, processes, bars.show)
        pictures = subject.drawn(processes, lambda done, total: bars.show("drawing", done, total))
        found = subject.examine(pictures, protocol=asked, looking=looking, seed=seed)
    evaluation = found.evaluation
    if processes.main:  # first, since what follows may find the disk full
        put(evaluation.to_json() if as_json else str(evaluation))
    if reference:
        keep_reference(reference, subject.real, looking, space=plan.measured[0])
    if not processes.main:
        return
    if run:
        say(str(save_evaluation(run, evaluation)))
        for ending, sheet in sheets(found, subject.train).items():
            say(str(save_picture(sheet, evaluation_file(run, evaluation.card, ending=ending))))
    if reference:
        say(f"reference in {reference}")


def _weights(words: Sequence[str]) -> tuple[str | None, dict[str, Path]]:
    """Which weights draw, and where those of feature networks are.

    Raises:
        ConfigError: The weights that draw are named twice, or are none.
    """
    from kao.runs.averages import known_name

    drawing = [word for word in words if "=" not in word]
    if len(drawing) > 1:
        raise ConfigError(
            f"--weights names {' and '.join(drawing)}, and one model draws: name one, or write "
            f"SPACE=PATH for a feature network."
        )
    for word in drawing:
        if word not in ("ema", "model") and not (known_name(word) or word.startswith("ema-")):
            raise ConfigError(
                f'--weights = "{word}"; expected ema, model, best-score, what kao ema made (best, '
                f"w0.10), or SPACE=PATH for a feature network."
            )
    pairs = (word.partition("=") for word in words if "=" in word)
    return (drawing[0] if drawing else None), {name: Path(path) for name, _, path in pairs}


def _check_options(
    drawn: str,
    *,
    of_run: bool,
    real: str | None,
    size: int | None,
    drawing: Mapping[str, object],
) -> None:
    """Refuse options that say nothing of what is scored.

    Raises:
        ConfigError: There is one, or real pictures are missing.
    """
    if of_run:
        if size is not None:
            raise ConfigError(
                f"--size is for folders of pictures, and {drawn} is a run, which draws at its own "
                f"size: leave it out."
            )
        return
    if given := [option for option, value in drawing.items() if value is not None]:
        raise ConfigError(
            f"{given[0]} says how a run draws, and {drawn} is no run directory: leave it out, or "
            f"name a run."
        )
    if real is None:
        raise ConfigError(
            f"{drawn} is no run directory, so what its pictures should look like is not known: "
            f"name real pictures with --real."
        )
