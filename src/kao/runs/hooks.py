"""What a run writes into its directory while it trains."""

from collections.abc import Mapping
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
                    trainer, config, count=config.hooks.pictures, worse=worse
                )
            if pictures is None:
                return
            grids[kind] = pictures
        for kind, pictures in grids.items() if trainer.processes.main else ():
            file = Path(SAMPLES) / f"{images:09d}-{kind}.png"
            save_picture(grid(pictures), self.run / file)
            self.tracker.event("samples", images, {"file": file.as_posix()})


def drawn_in_training(
    trainer: Trainer,
    config: RunConfig,
    *,
    count: int,
    worse: Denoiser | None,
    seed: int = 0,
) -> Tensor | None:
    """Pictures 0 .. count - 1 of a seed, by the weights that the model has now.

    Args:
        trainer: Whose model draws; several processes, which must call this together, share it.
        config: Says how to draw.
        count: How many, 1 or more.
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
        seed=seed,
        batch=at_once(trainer.device),
        worse=worse,
        processes=trainer.processes,
    ):
        batches.append(batch)
        if trainer.leaving():
            return None
    return torch.cat(batches)
