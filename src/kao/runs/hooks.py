"""What a run writes into its directory while it trains."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kao.checkpoints import LOSS, MODEL, Checkpoint
from kao.config import RunConfig
from kao.diffusion import Denoiser
from kao.machine import memory_in_use, versions
from kao.runs.run import SAMPLES, draw, load_worse
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
        """Write what was metered since the last line; nothing if nothing was."""
        if trainer.meter.empty:
            return
        values = {
            "seconds": round(trainer.progress.seconds, 3),
            **trainer.meter.take(),
            "learning_rate": trainer.learning_rate,
            "memory_bytes": memory_in_use(trainer.accelerator.device),
        }
        self.tracker.event("train", trainer.progress.images, values)


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
        worse = load_worse(config, device=trainer.accelerator.device)
        # The averages come last: theirs is the newest grid of a run.
        for kind, weights in {"raw": None, "ema": next(iter(trainer.ema.values())).average}.items():
            with _weights(denoiser, weights), trainer.autocast():
                indices = range(config.hooks.pictures)
                pictures = torch.cat(list(draw(denoiser, config, indices=indices, worse=worse)))
            file = Path(SAMPLES) / f"{images:09d}-{kind}.png"
            save_picture(grid(pictures), self.run / file)
            self.tracker.event("samples", images, {"file": file.as_posix()})


@contextmanager
def _weights(denoiser: Denoiser, weights: dict[str, Tensor] | None) -> Iterator[None]:
    """The denoiser in eval mode, with other weights for a while; None leaves its own."""
    live = denoiser.state_dict()
    own = {name: value.clone() for name, value in live.items()} if weights else {}
    denoiser.eval()
    try:
        with torch.no_grad():
            for name, value in (weights or {}).items():
                live[name].copy_(value)
        yield
    finally:
        with torch.no_grad():
            for name, value in own.items():
                live[name].copy_(value)
        denoiser.train()


class Checkpoints:
    """A checkpoint; old ones are removed.

    Args:
        run: The run directory.
        config: Saved with each; says how many stay.
        tracker: Told of each checkpoint.
        every: Images between checkpoints.
    """

    def __init__(self, run: Path, config: RunConfig, tracker: Tracker, *, every: int):
        self.run, self.config, self.tracker, self.every = run, config, tracker, every

    def __call__(self, trainer: Trainer) -> None:
        """Write one, tell the tracker, remove those that need not stay."""
        images = trainer.progress.images
        learned = trainer.loss.state_dict()
        Checkpoint.write(
            self.run,
            images=images,
            config=self.config.to_toml(),
            weights={
                MODEL: trainer.denoiser.state_dict(),
                **{name: average.average for name, average in trainer.ema.items()},
                **({LOSS: learned} if learned else {}),
            },
            state=trainer.state_dict(),
            card={"versions": versions(), "seconds": trainer.progress.seconds},
        )
        self.tracker.event("checkpoint", images, {})
        hooks = self.config.hooks
        Checkpoint.prune(self.run, last=hooks.keep_last, every=hooks.keep_every)
