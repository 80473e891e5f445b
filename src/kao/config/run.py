"""The whole configuration of a run, and how it becomes objects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import tomli_w
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from kao.config.tree import dump
from kao.data.augment import AugmentConfig
from kao.data.loading import batches
from kao.data.prepare import MIN_SIZE
from kao.data.prepared import PreparedSet
from kao.diffusion import (
    DDIM,
    EDM,
    GRIDS,
    NORMS,
    SAMPLERS,
    SCHEDULES,
    TARGETS,
    WEIGHTS,
    Clipped,
    Denoise,
    Denoiser,
    DenoisingLoss,
    Grid,
    MinSNR,
    NoiseSchedule,
    Norm,
    Sampler,
    ScheduleConfig,
    Target,
    VPCosine,
    Weight,
    grids,
    losses,
    targets,
)
from kao.errors import ConfigError
from kao.machine import check_precision
from kao.networks import NETWORKS, UNetConfig
from kao.seeds import mixed_seed
from kao.training import EMA, Hook, Length, OptimizerConfig, Trainer, warmed_decay

CHANNELS = 3
_WEIGHTS = 4


def component(registry: Mapping[str, Any], default: Any) -> Any:
    """A field that holds one entry of a registry; see `config.tree`."""
    return field(default_factory=lambda: default, metadata={"registry": registry})


class NetworkConfig(Protocol):
    """An entry of NETWORKS."""

    def build(self, *, channels: int, size: int) -> torch.nn.Module:
        """The network for square pictures of `size` pixels."""


@dataclass(frozen=True)
class DataConfig:
    """[data]: which pictures, and how they are cut.

    Attributes:
        source: A folder, a zip file, "hf:NAME" or "toy".
        size: Side of the pictures that are learned, pixels.
        crop: "centre" square, whole picture "pad"ded, or "none": refuse what is not square.
        classes: First-level folders to take; empty takes all.
        fingerprint: Of the prepared pictures; filled in when a run starts.
        augment: What is done to each picture after loading.
    """

    source: str = ""
    size: int = 32
    crop: Literal["centre", "pad", "none"] = "centre"
    classes: tuple[str, ...] = ()
    fingerprint: str = ""
    augment: AugmentConfig = AugmentConfig()


@dataclass(frozen=True)
class LossConfig:
    """[loss].

    Attributes:
        weight: Weight on the squared error of x_0, as a function of snr.
        norm: What is averaged over a picture's residual.
        stratified: Spread the times of a batch evenly; the same mean with less noise.
    """

    weight: Weight | None = component(WEIGHTS, MinSNR())
    norm: Norm = component(NORMS, losses.l2)
    stratified: bool = True


@dataclass(frozen=True)
class EMAConfig:
    """[ema]: the running average of the weights that pictures are drawn with.

    Attributes:
        decay: Weight kept at each step, below 1; smaller in the first steps.
    """

    decay: float = 0.999


@dataclass(frozen=True)
class TrainingConfig:
    """[training].

    Attributes:
        batch: Pictures in a step.
        precision: What the network computes in; "auto" asks the hardware when a run starts.
    """

    batch: int = 32
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


@dataclass(frozen=True)
class SamplingConfig:
    """[sampling]: how pictures are drawn where nothing else is said.

    Attributes:
        sampler: How the path is integrated.
        grid: Where on it.
        steps: In how many steps.
        clipped: Clamp predicted pictures to what pixels can show, at each step.
    """

    sampler: Sampler = component(SAMPLERS, DDIM())
    grid: Grid = component(GRIDS, grids.uniform)
    steps: int = 25
    clipped: bool = True


@dataclass(frozen=True)
class HooksConfig:
    """[hooks]: what happens during a run, in images between two times.

    "auto" spreads a fixed number over the run: 400 lines, 8 grids, 10 checkpoints.

    Attributes:
        log: Between lines of metrics.jsonl.
        samples: Between sample grids.
        checkpoints: Between checkpoints.
        pictures: In a sample grid.
        keep_last: Newest checkpoints that stay.
        keep_every: Images; the first checkpoint past each multiple stays too; 0 for none.
    """

    log: int | Literal["auto"] = "auto"
    samples: int | Literal["auto"] = "auto"
    checkpoints: int | Literal["auto"] = "auto"
    pictures: int = 64
    keep_last: int = 2
    keep_every: int = 0


@dataclass(frozen=True)
class TrackingConfig:
    """[tracking]: where figures go beside metrics.jsonl.

    Attributes:
        tensorboard: Event files in the run directory.
        wandb: Weights & Biases, with the extra `wandb`; WANDB_MODE=offline works.
        project: Project name there.
    """

    tensorboard: bool = True
    wandb: bool = False
    project: str = "kao"


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run.  Saved whole in run.toml; recipes change some of it.

    Attributes:
        seed: Of weights, order of pictures, noise and dropout.
        length: "10 minutes", "100k images", "1000 steps": see `Length.parse`.
    """

    seed: int = 0
    data: DataConfig = DataConfig()
    schedule: ScheduleConfig = component(SCHEDULES, VPCosine())
    target: Target = component(TARGETS, targets.v)
    network: NetworkConfig = component(NETWORKS, UNetConfig())
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: EMAConfig = EMAConfig()
    training: TrainingConfig = TrainingConfig()
    length: str = "10 minutes"
    sampling: SamplingConfig = SamplingConfig()
    hooks: HooksConfig = HooksConfig()
    tracking: TrackingConfig = TrackingConfig()

    def to_toml(self) -> str:
        """The full configuration, defaults included."""
        return tomli_w.dumps(dump(self))

    def check(self) -> None:
        """Raise a ConfigError for values that do not fit together, before anything is built."""
        Length.parse(self.length, batch=max(1, self.training.batch))
        if self.data.size < MIN_SIZE:
            raise ConfigError(f"data.size = {self.data.size}; expected {MIN_SIZE} pixels or more.")
        self.data.augment.check(self.data.size)
        self.optimizer.check()
        for name, value, least in (
            ("seed", self.seed, 0),
            ("training.batch", self.training.batch, 1),
            ("hooks.pictures", self.hooks.pictures, 1),
            ("hooks.keep_last", self.hooks.keep_last, 1),
            ("hooks.keep_every", self.hooks.keep_every, 0),
            ("sampling.steps", self.sampling.steps, 1),
            *((f"hooks.{n}", getattr(self.hooks, n), 1) for n in ("log", "samples", "checkpoints")),
        ):
            if value != "auto" and value < least:
                raise ConfigError(f"{name} = {value}; expected {least} or more.")
        if not 0 <= self.ema.decay < 1:
            raise ConfigError(f"ema.decay = {self.ema.decay}; expected 0 or more, below 1.")
        self.build_denoiser("meta")
        self.times(self.schedule.build())

    def build_denoiser(self, device: str = "cpu") -> Denoiser:
        """The model, with weights drawn from the seed.

        Args:
            device: "cpu", or "meta" for shapes only, to check and to count.

        Raises:
            ConfigError: Network, size, schedule and target do not fit together.
        """
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.manual_seed(mixed_seed(_WEIGHTS, self.seed))
            network = self.network.build(channels=CHANNELS, size=self.data.size)
        return Denoiser(
            network,
            self.schedule.build(),
            self.target,
            sigma_data=self.target.sigma_data if isinstance(self.target, EDM) else None,
        )

    def times(self, schedule: NoiseSchedule) -> torch.Tensor:
        """The grid of times that [sampling] asks for."""
        return self.sampling.grid(schedule, self.sampling.steps)

    def clip(self, denoise: Denoise) -> Denoise:
        """The denoiser as [sampling] wants it."""
        return Clipped(denoise) if self.sampling.clipped else denoise

    def build(
        self,
        prepared: PreparedSet,
        device: torch.device,
        hooks: Callable[["RunConfig"], list[Hook]] = lambda config: [],
    ) -> Trainer:
        """The trainer, at the start of the run.

        Args:
            prepared: The pictures, of data.size.
            device: Where to train.
            hooks: Makes the hooks.

        Raises:
            ConfigError: Something does not fit together.
        """
        if self.training.precision == "auto":
            raise ConfigError("training.precision = 'auto' must be resolved before a run is built.")
        check_precision(self.training.precision, device)
        # Accelerate keeps one device and precision a process; this run may want others than the
        # last.  Its precision is used for the loss scaler of fp16 alone, see `Trainer.autocast`.
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="fp16" if self.training.precision == "fp16" else "no",
        )
        denoiser = self.build_denoiser().to(accelerator.device)
        optimizer = accelerator.prepare(self.optimizer.build(denoiser.parameters()))
        schedule = denoiser.schedule
        return Trainer(
            denoiser,
            DenoisingLoss(
                losses.uniform(schedule, stratified=self.loss.stratified),
                weight=self.loss.weight,
                norm=self.loss.norm,
            ),
            lambda images: batches(
                prepared,
                batch=self.training.batch,
                seed=self.seed,
                images=images,
                augmentation=self.data.augment,
            ),
            optimizer,
            rate=self.optimizer.rate,
            schedule=self.optimizer.schedule,
            accelerator=accelerator,
            precision=self.training.precision,
            length=Length.parse(self.length, batch=self.training.batch),
            ema={f"ema-{self.ema.decay:g}": EMA(denoiser, warmed_decay(self.ema.decay))},
            hooks=hooks(self),
            clip_norm=self.optimizer.clip_norm,
            seed=self.seed,
        )
