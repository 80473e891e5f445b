"""A run directory: the unit a person copies, resumes, draws from and shares."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from kao.checkpoints import FOLDER, LOSS, Checkpoint, fill
from kao.config import RunConfig, SamplingConfig, load_config
from kao.config.run import CHANNELS
from kao.config.sampling import refuse_uneven
from kao.diffusion import Ancestral, Denoise, Denoiser, Guided, Times, grids, sample, seeds_of
from kao.diffusion.guidance import Conditioned
from kao.errors import CheckpointError, ConfigError
from kao.files import near_path, read_text, readable
from kao.machine import device as best_device
from kao.networks import Conditions
from kao.networks.lora import merged
from kao.pixels import to_uint8
from kao.processes import ALONE, Processes
from kao.runs.averages import SavedAverage, known_name, place
from kao.runs.classes import labels_of
from kao.runs.guiding import refuse_stranger, refuse_vain

CONFIG = "run.toml"
SAMPLES = "samples"
PICTURES = "pictures"


@dataclass(frozen=True)
class Run:
    """A run directory.

        run.toml                 the full configuration, defaults included
        metrics.jsonl            one line an event
        checkpoints/000500000/   named by images seen; whole or absent
        snapshots/000500000.safetensors        averages, for `kao ema`
        averages/w0.100.safetensors            what `kao ema` made of them
        averages/best-score.safetensors        those with the best score while training
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
            what = f"{path} is a file and no" if path.is_file() else "There is no"
            where = "" if path.is_file() else f" {path}{near_path(path)}"
            raise CheckpointError(
                f"{what} run directory{where}: give the folder that `kao train --run` wrote."
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
            text = read_text(file)
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{file} cannot be read ({error}).") from error
        return load_config(text, str(file))

    def drawing(self, sampling: SamplingConfig | None = None) -> RunConfig:
        """The configuration to draw with: a learned grid is filled in from the newest checkpoint.

        Args:
            sampling: Another way to draw than the run's own.

        Raises:
            ConfigError: The grid does not fit the schedule, or the run has learned none; or as
                `check_drawing`.
            CheckpointError: As `check_drawing`.
        """
        config = self.config
        sampling = sampling or config.sampling
        empty = isinstance(sampling.grid, grids.Learned) and not sampling.grid.knots
        times = self.learned_times() if empty else None
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
        """The model, ready to draw; adapters are merged into the layers that they are on.

        Args:
            checkpoint: Which; None takes the newest whole one.
            weights: "ema" for the averaged weights, "model" for those being trained; one of
                several averages by its name, "ema-w0.050"; one that `kao ema` made, "w0.10" or
                "best"; or "best-score", those with the best score while training.
            device: Where to put it; the accelerator if there is one.

        Raises:
            CheckpointError: There is no whole checkpoint, it does not fit run.toml, or there are no
                such weights.
        """
        if checkpoint is None:
            checkpoint, damages = self.checkpoint()
            for damage in damages:
                said = f"{damage}: taking {checkpoint.path.name} instead."
                warnings.warn(readable(said), stacklevel=2)
        config = load_config(checkpoint.config, str(checkpoint.path / CONFIG))
        denoiser = config.build_denoiser()
        if made := known_name(weights):
            fill(denoiser, SavedAverage.load(self.path, made).tensors, place(self.path, made))
        else:
            kind = checkpoint.averages[0] if weights == "ema" else weights
            checkpoint.load_into(denoiser, kind)
        if config.finetune.train == "lora":
            denoiser.network = merged(denoiser.network)
        return denoiser.to(device or best_device()).eval().requires_grad_(False)


def check_drawing(config: RunConfig) -> None:
    """Refuse what [sampling] asks of other parts of the configuration, or of other runs, in vain.

    Args:
        config: Of the model that is to draw.

    Raises:
        ConfigError: A variance that is not learned is asked for, PNDM is to take steps that it is
            not made for, guidance has nothing to go away from, or the worse model is of other
            pictures or classes or another schedule.
        CheckpointError: The worse model is no run and no checkpoint.
    """
    sampler = config.sampling.sampler
    if isinstance(sampler, Ancestral) and sampler.variance == "learned" and config.loss.bound == 0:
        raise ConfigError(
            'sampling.sampler.variance = "learned", but with loss.bound = 0 the network learns no '
            'variance: choose "beta" or "beta_tilde", or train a model with loss.bound = 0.001.'
        )
    refuse_uneven(config.sampling)
    refuse_vain(config)
    if config.sampling.guidance.worse:
        _worse(config)


def load_worse(config: RunConfig, *, device: torch.device) -> Denoiser | None:
    """The worse model that [sampling.guidance] names, ready to draw; None where it names none.

    Args:
        config: Of the model that is to be guided.
        device: Where that model is.

    Raises:
        ConfigError: As `check_drawing`.
        CheckpointError: It is no run and no checkpoint, or is damaged.
    """
    if not config.sampling.guidance.worse:
        return None
    run, checkpoint = _worse(config)
    return run.denoiser(checkpoint, device=device)


def _worse(config: RunConfig) -> tuple[Run, Checkpoint | None]:
    """The run of the worse model, and which checkpoint, if one is named; neither is loaded."""
    name = config.sampling.guidance.worse
    path = Path(name).absolute()
    checkpoint = Checkpoint(path) if path.parent.name == FOLDER else None
    if not (path / CONFIG).is_file() or not (checkpoint or Checkpoint.all(path)):
        raise CheckpointError(
            f'sampling.guidance.worse = "{name}" is neither a run with a checkpoint nor one of its '
            f"checkpoints: give a folder that `kao train` wrote (you are in {Path.cwd()})."
        )
    run = Run(path.parent.parent if checkpoint else path)
    worse = load_config(checkpoint.config, str(path / CONFIG)) if checkpoint else run.config
    refuse_stranger(name, worse, config)
    return run, checkpoint


def guided(
    denoiser: Denoiser,
    config: RunConfig,
    *,
    worse: Denoiser | None = None,
    labels: Tensor | None = None,
) -> Denoise:
    """The model as [sampling] wants it: told its classes, guided, then with its threshold.

    It is guided by a worse model, which is told the same, where there is one; else away from what
    it says itself when no class is told.

    Args:
        denoiser: The model, on its device.
        config: Its [sampling] says how.
        worse: From `load_worse`; None loads it where [sampling.guidance] names one.
        labels: From `classes.labels_of`, one a picture of the batch, (B,).  None: no class is
            told, and so none is guided to.

    Raises:
        ConfigError: As `check_drawing`.
        CheckpointError: As `load_worse`.
    """
    refuse_vain(config)
    guidance = config.sampling.guidance
    device = next(denoiser.parameters()).device
    worse = worse or load_worse(config, device=device)
    model: Denoise = denoiser
    other: Denoise | None = worse
    if labels is not None:
        told = Conditions(label=labels.to(device))
        model = Conditioned(denoiser, told)
        if worse is not None:
            other = Conditioned(worse, told)
        elif guidance.scale != 1:
            other = denoiser
    if other is None:
        return config.wrap(model)
    return config.wrap(
        Guided(
            model,
            other,
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
    classes: Sequence[str] = (),
    seed: int = 0,
    batch: int = 64,
    worse: Denoiser | None = None,
    processes: Processes = ALONE,
) -> Iterator[Tensor]:
    """Draw pictures, a batch at a time.

    Several processes, which must then call this together, each draw their rows of `batch` times
    as many, and all of them get all pictures.

    Args:
        denoiser: The model.
        config: Its [data] and [sampling] say the size and how to draw.
        indices: Which pictures of the seed; picture i is the same whatever the others are.
        classes: Those to draw, in turn, of a model that is told classes.  Empty: all of them, in
            the shares that they have among the pictures that were learned from.
        seed: 0 or more.
        batch: Pictures at a time.
        worse: From `load_worse`, by who draws more than once; None loads it where it is needed.
        processes: Who shares the work.

    Yields:
        uint8, (up to `batch` a process, 3, S, S), on the CPU, in the order of `indices`.

    Raises:
        ConfigError: As `check_drawing`, or a class is asked for that the model does not know.
        CheckpointError: As `load_worse`.
    """
    device = next(denoiser.parameters()).device
    times = config.times(denoiser.schedule)
    labels = labels_of(config.conditions, indices, classes=classes)
    worse = worse or load_worse(config, device=device)
    batch *= processes.world
    for start in range(0, len(indices), batch):
        here = range(start, min(start + batch, len(indices)))
        mine = here[processes.rows(len(here))]
        # Who gets none draws one for company: sharded weights are fetched by all together.
        drawn = mine or here[:1]
        x = sample(
            guided(
                denoiser,
                config,
                worse=worse,
                labels=None if labels is None else labels[drawn.start : drawn.stop],
            ),
            config.sampling.sampler,
            times,
            (CHANNELS, config.data.size, config.data.size),
            seeds=seeds_of(seed, [indices[i] for i in drawn]),
            device=device,
        )
        yield processes.gather(to_uint8(x).cpu()[: len(mine)])


def with_sampling(
    config: RunConfig, sampling: SamplingConfig, *, knots: tuple[float, ...] | None = None
) -> RunConfig:
    """The configuration with another way to draw, checked against its schedule.

    Args:
        config: Of a run.
        sampling: How to draw.
        knots: Where the training times were learned, for the grid "learned": `Times.knots`.

    Raises:
        ConfigError: The grid does not fit the schedule, or is to be learned and was not; or as
            `check_drawing`.
        CheckpointError: As `check_drawing`.
    """
    changed = replace(config, sampling=sampling).with_learned_grid(knots)
    changed.times(changed.schedule.build())
    check_drawing(changed)
    return changed
