"""What a run writes into its directory while it trains."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kao.config import RunConfig
from kao.diffusion import Denoiser
from kao.machine import memory, reset_peaks
from kao.runs.run import SAMPLES, draw, load_worse
from kao.runs.weights import lent
from kao.tracking import Tracker
from kao.training import Trainer
from kao.visualisation import grid, save_picture

_CPU_BATCH, _GPU_BATCH = 8, 64


def at_once(device: torch.device) -> int:
    """Pictures that a hook draws at a time.

    A stop waits for the batch in hand; a CPU draws eight at a time as fast as more, and a GPU does
    not.
    """
    return _CPU_BATCH if device.type == "cpu" else _GPU_BATCH


class Trackers:
    """Several trackers as one, called in the order in which they were added."""

    def __init__(self) -> None:
        self._trackers: list[Tracker] = []

    def add(self, tracker: Tracker) -> None:
        """Let it have the events from now on."""
        self._trackers.append(tracker)

    def event(self, kind: str, images: int, values: Mapping[str, Any]) -> None:
        """See `kao.tracking.Tracker`."""
        for tracker in self._trackers:
            tracker.event(kind, images, values)

    def close(self) -> None:
        """See `kao.tracking.Tracker`."""
        for tracker in self._trackers:
            tracker.close()


class Log:
    """A line of metrics.jsonl.

    Memory's peaks are those since the line before: of the steps, and of what hooks did in between.

    Args:
        tracker: Where it goes.
        every: Images between lines.
    """

    def __init__(self, tracker: Tracker, *, every: int):
        self.tracker, self.every = tracker, every

    def __call__(self, trainer: Trainer) -> None:
        """Write what was metered since the last line, spikes first; nothing if nothing was."""
        meter, images = trainer.meter, trainer.progress.images
        if meter.empty:
            return
        for spike in meter.spikes:
            told = {"loss": spike.loss, "usual": spike.usual}
            self.tracker.event("spike", spike.images, told)
        values: dict[str, Any] = {
            "seconds": round(trainer.progress.seconds, 3),
            **meter.take(),
            "learning_rate": trainer.learning_rate,
            "ema_distance": {name: average.distance() for name, average in trainer.ema.items()},
            "memory": memory(trainer.device),
        }
        reset_peaks(trainer.device)
        if pieces := trainer.gradients.micro_batch:
            values["micro_batch"] = pieces
        if (scaler := trainer.gradients.scaler) is not None:
            values["loss_scale"] = scaler.get_scale()
        self.tracker.event("train", images, values)


class Samples:
    """Grids from the same noise from start to end, with the raw and the averaged weights.

    Of a model that is told classes they show each class in turn: few classes in columns of their
    own.

    Args:
        run: The run directory.
        config: Says how to draw, and how many pictures.
        tracker: Told of each grid.
        every: Images between grids.
    """

    def __init__(self, run: Path, config: RunConfig, tracker: Tracker, *, every: int):
        self.run, self.config, self.tracker, self.every = run, config, tracker, every

    def __call__(self, trainer: Trainer) -> None:
        """Draw, write the PNGs, tell the tracker.

        Nothing is written where a run is stopped before or meanwhile: a thousand steps of many
        pictures may outlast whoever sent the signal, so it is asked for after each batch.
        """
        if trainer.leaving():
            return
        denoiser, images = trainer.denoiser, trainer.progress.images
        config = self.config.with_learned_grid(trainer.loss.times.knots())
        worse = load_worse(config, device=trainer.device)
        # The averages come last: theirs is the newest grid of a run.
        grids: dict[str, Tensor] = {}
        for kind, weights in {"raw": None, "ema": next(iter(trainer.ema.values())).average}.items():
            with lent(denoiser, weights), trainer.gradients.autocast():
                pictures = drawn_in_training(
                    trainer,
                    config,
                    count=config.hooks.pictures,
                    classes=config.conditions.names,
                    worse=worse,
                )
            if pictures is None:
                return
            grids[kind] = pictures
        names = config.conditions.names
        columns = in_columns(len(names), pictures=config.hooks.pictures)
        for kind, pictures in grids.items() if trainer.processes.main else ():
            file = Path(SAMPLES) / f"{images:09d}-{kind}.png"
            save_picture(grid(pictures, columns=columns), self.run / file)
            told = {"classes": list(names)} if columns else {}
            self.tracker.event("samples", images, {"file": file.as_posix(), **told})


def in_columns(classes: int, *, pictures: int) -> int | None:
    """Columns of a grid in which each column holds one class, of classes that come in turn.

    Args:
        classes: How many; 0: the model is told none.
        pictures: In the grid.

    Returns:
        The multiple of the number of classes that makes the grid nearest to square; None where one
        row would not hold all classes and the grid be a grid.
    """
    side = math.sqrt(pictures)
    if classes < 2 or classes > 2 * side:
        return None
    return classes * max(1, round(side / classes))


def drawn_in_training(
    trainer: Trainer,
    config: RunConfig,
    *,
    count: int,
    classes: Sequence[str] = (),
    worse: Denoiser | None,
    seed: int = 0,
) -> Tensor | None:
    """Pictures 0 .. count - 1 of a seed, by the weights that the model has now.

    Args:
        trainer: Whose model draws; several processes, which must call this together, share it.
        config: Says how to draw.
        count: How many, 1 or more.
        classes: See `draw`.
        worse: The model that guides, if one does.
        seed: Of the noise.

    Returns:
        uint8, (count, 3, S, S), on the CPU; None where the run is to stop.
    """
    batches = []
    for batch in draw(
        trainer.denoiser,
        config,
        indices=range(count),
        classes=classes,
        seed=seed,
        batch=at_once(trainer.device),
        worse=worse,
        processes=trainer.processes,
    ):
        batches.append(batch)
        if trainer.leaving():
            return None
    return torch.cat(batches)
