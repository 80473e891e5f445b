"""A run directory: the unit a person copies, resumes, draws from and shares."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from kao.checkpoints import LOSS, Checkpoint
from kao.config import RunConfig, SamplingConfig, load_config
from kao.config.run import CHANNELS
from kao.diffusion import Denoise, Denoiser, Guided, Times, grids, sample, seeds_of
from kao.errors import CheckpointError
from kao.machine import device as best_device
from kao.pixels import to_uint8

CONFIG = "run.toml"
SAMPLES = "samples"
PICTURES = "pictures"


@dataclass(frozen=True)
class Run:
    """A run directory.

        run.toml                 the full configuration, defaults included
        metrics.jsonl            one line an event
        checkpoints/000500000/   named by images seen; whole or absent
        samples/000500000-ema.png, -raw.png    grids from the same noise from start to end
        pictures/                strips and animations made by `kao show`
        report.html

    Attributes:
        path: The directory.
    """

    path: Path

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """A run that exists.

        Raises:
            CheckpointError: The directory is missing or is not a run.
        """
        path = Path(path)
        if not path.is_dir():
            raise CheckpointError(
                f"There is no run directory {path}: give the folder that `kao train --run` wrote."
            )
        if not (path / CONFIG).is_file():
            raise CheckpointError(
                f"{path} is not a run directory, since it has no {CONFIG}: give the folder that "
                f"`kao train --run` wrote."
            )
        return cls(path)

    @property
    def config(self) -> RunConfig:
        """The configuration it was started with.

        Raises:
            ConfigError: run.toml cannot be read.
        """
        file = self.path / CONFIG
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{file} cannot be read ({error}).") from error
        return load_config(text, str(file))

    def drawing(self, sampling: SamplingConfig | None = None) -> RunConfig:
        """The configuration to draw with: a learned grid is filled in from the newest checkpoint.

        Args:
            sampling: Another way to draw than the run's own.

        Raises:
            ConfigError: The grid does not fit the schedule, or the run has learned none.
        """
        config = self.config
        sampling = sampling or config.sampling
        times = self.learned_times() if isinstance(sampling.grid, grids.Learned) else None
        return with_sampling(config, sampling, knots=times.knots() if times else None)

    def learned_times(self) -> Times | None:
        """The training times as the newest checkpoint has them; None where they are not learned.

        Raises:
            CheckpointError: There is no whole checkpoint.
        """
        config = self.config
        times = config.loss.times.build(config.schedule.build())
        if times.knots() is None:
            return None
        saved = self.checkpoint()[0].weights(LOSS)
        own = {name: saved[f"times.{name}"] for name in times.state_dict()}
        times.load_state_dict(own)
        return times

    def checkpoint(self) -> tuple[Checkpoint, list[str]]:
        """The newest whole checkpoint, and sentences on newer ones that are damaged.

        Raises:
            CheckpointError: There is no whole one.
        """
        checkpoint, damages = Checkpoint.latest(self.path, training=False)
        if checkpoint is None:
            why = f"; damaged: {damages[0]}" if damages else ""
            raise CheckpointError(
                f"{self.path} has no whole checkpoint yet{why}: let `kao train` run until its "
                f"first checkpoint."
            )
        return checkpoint, damages

    def denoiser(
        self,
        checkpoint: Checkpoint | None = None,
        *,
        weights: str = "ema",
        device: torch.device | None = None,
    ) -> Denoiser:
        """The model, ready to draw.

        Args:
            checkpoint: Which; None takes the newest whole one.
            weights: "ema" for the averaged weights, "model" for those being trained.
            device: Where to put it; the accelerator if there is one.

        Raises:
            CheckpointError: There is no whole checkpoint, or it does not fit run.toml.
        """
        if checkpoint is None:
            checkpoint, damages = self.checkpoint()
            for damage in damages:
                warnings.warn(f"{damage}: taking {checkpoint.path.name} instead.", stacklevel=2)
        denoiser = load_config(checkpoint.config, str(checkpoint.path / CONFIG)).build_denoiser()
        kind = checkpoint.averages[0] if weights == "ema" else weights
        checkpoint.load_into(denoiser, kind)
        return denoiser.to(device or best_device()).eval().requires_grad_(False)


def guided(denoiser: Denoiser, config: RunConfig) -> Denoise:
    """The model as [sampling] wants it: guided by a worse one, then with its threshold.

    Args:
        denoiser: The model, on its device.
        config: Its [sampling] says how.

    Raises:
        CheckpointError: The worse model is no run and no checkpoint, or is of other pictures.
    """
    guidance = config.sampling.guidance
    if not guidance.worse or guidance.scale == 1:
        return config.wrap(denoiser)
    path = Path(guidance.worse)
    checkpoint = Checkpoint(path) if (path / CONFIG).is_file() and path.name.isdecimal() else None
    run = Run(path.parent.parent) if checkpoint else Run.open(path)
    worse = run.denoiser(checkpoint, device=next(denoiser.parameters()).device)
    return config.wrap(
        Guided(
            denoiser,
            worse,
            scale=guidance.scale,
            interval=guidance.interval,
            rescale=guidance.rescale,
        )
    )


def draw(
    denoiser: Denoiser,
    config: RunConfig,
    *,
    indices: Sequence[int],
    seed: int = 0,
    batch: int = 64,
) -> Iterator[Tensor]:
    """Draw pictures, a batch at a time.

    Args:
        denoiser: The model.
        config: Its [data] and [sampling] say the size and how to draw.
        indices: Which pictures of the seed; picture i is the same whatever the others are.
        seed: 0 or more.
        batch: Pictures at a time.

    Yields:
        uint8, (up to `batch`, 3, S, S), in the order of `indices`.
    """
    times, denoise = config.times(denoiser.schedule), guided(denoiser, config)
    for start in range(0, len(indices), batch):
        seeds = seeds_of(seed, indices[start : start + batch])
        x = sample(
            denoise,
            config.sampling.sampler,
            times,
            (CHANNELS, config.data.size, config.data.size),
            seeds=seeds,
            device=next(denoiser.parameters()).device,
        )
        yield to_uint8(x).cpu()


def with_sampling(
    config: RunConfig, sampling: SamplingConfig, *, knots: tuple[float, ...] | None = None
) -> RunConfig:
    """The configuration with another way to draw, checked against its schedule.

    Args:
        config: Of a run.
        sampling: How to draw.
        knots: Where the training times were learned, for the grid "learned": `Times.knots`.

    Raises:
        ConfigError: The grid does not fit the schedule, or is to be learned and was not.
    """
    changed = replace(config, sampling=sampling).with_learned_grid(knots)
    changed.times(changed.schedule.build())
    return changed
