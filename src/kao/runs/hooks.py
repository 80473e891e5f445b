"""What a run writes into its directory while it trains."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kao.config import RunConfig
from kao.machine import memory
from kao.runs.run import SAMPLES, draw, load_worse
from kao.runs.weights import lent
from kao.tracking import Tracker
from kao.training import Trainer
from kao.visualisation import grid, save_picture


class Trackers:
    """Several trackers as one.

    Args:
        trackers: Called in order.
    """

    def __init__(self, trackers: Sequence[Tracker]):
        self._trackers = trackers

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
        for spike in meter.spikes(images):
            told = {"loss": spike.loss, "usual": spike.usual}
            self.tracker.event("spike", spike.images, told)
        values: dict[str, Any] = {
            "seconds": round(trainer.progress.seconds, 3),
            **meter.take(),
            "learning_rate": trainer.learning_rate,
            "ema_distance": {name: average.distance() for name, average in trainer.ema.items()},
            "memory": memory(trainer.device),
        }
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
        """Draw, write the PNGs, tell the tracker; nothing on the way out of a stopped run."""
        if trainer.stopping and trainer.done < 1:
            return  # a thousand steps of many pictures may outlast whoever sent the signal
        denoiser, images = trainer.denoiser, trainer.progress.images
        config = self.config.with_learned_grid(trainer.loss.times.knots())
        worse = load_worse(config, device=trainer.device)
        # The averages come last: theirs is the newest grid of a run.
        for kind, weights in {"raw": None, "ema": next(iter(trainer.ema.values())).average}.items():
            with lent(denoiser, weights), trainer.gradients.autocast():
                indices = range(config.hooks.pictures)
                drawn = draw(
                    denoiser, config, indices=indices, worse=worse, processes=trainer.processes
                )
                pictures = torch.cat(list(drawn))
            if trainer.processes.main:
                file = Path(SAMPLES) / f"{images:09d}-{kind}.png"
                save_picture(grid(pictures), self.run / file)
                self.tracker.event("samples", images, {"file": file.as_posix()})
