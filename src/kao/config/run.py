"""The whole configuration of a run, and how it becomes objects."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

import tomli_w
import torch

from kao.config.conditioning import ConditionsConfig
from kao.config.finetuning import FinetuneConfig
from kao.config.loss import LossConfig
from kao.config.refusals import refuse_bursting_weights, refuse_loud_inputs, refuse_pairs
from kao.config.sampling import SamplingConfig
from kao.config.sections import (
    DataConfig,
    EMAConfig,
    EvaluationConfig,
    HooksConfig,
    TrackingConfig,
    TrainingConfig,
)
from kao.config.tree import component, dump
from kao.data.keeping import Kept, keep, place
from kao.data.loading import Batch, batches
from kao.data.prepare import MIN_SIZE
from kao.data.prepared import PreparedSet
from kao.data.split import check_split, split
from kao.diffusion import (
    EDM,
    SCHEDULES,
    TARGETS,
    Denoise,
    Denoiser,
    NoiseSchedule,
    ScheduleConfig,
    Target,
    VPCosine,
    grids,
    targets,
)
from kao.errors import ConfigError
from kao.machine import allow_tf32, check_precision
from kao.networks import NETWORKS, Takes, UNetConfig
from kao.networks.lora import adapt, begin, is_adapter
from kao.networks.recompute import recompute
from kao.networks.selecting import choose
from kao.processes import ALONE, Processes
from kao.seeds import mixed_seed
from kao.training import (
    Classes,
    Gradients,
    Hook,
    Length,
    Objective,
    OptimizerConfig,
    Trainer,
    check_spread,
    scale_rate,
    spread,
)

CHANNELS = 3
_WEIGHTS = 4

_SIGMA_DATA = 0.5
"""Of pixels in [-1, 1], about."""

_INTERVALS = ("log", "samples", "checkpoints", "held_out")


class NetworkConfig(Protocol):
    """An entry of NETWORKS."""

    @property
    def multiple(self) -> int:
        """What the side of every picture that it is shown must be a multiple of."""

    def build(
        self,
        *,
        channels: int,
        size: int,
        outputs: int | None = None,
        takes: Takes = Takes(),
    ) -> torch.nn.Module:
        """The network for square pictures of `size` pixels; see `UNetConfig.build`."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run.  Saved whole in run.toml; recipes change some of it.

    Attributes:
        seed: Of weights, order of pictures, noise and dropout.
        input_scaling: Divide what the network sees by its standard deviation at each level (c_in
            of Karras et al. 2022, for data of 0.5); always on with the EDM target, needed on "ve".
        length: "10 minutes", "100k images", "1000 steps": see `Length.parse`.
    """

    seed: int = 0
    data: DataConfig = DataConfig()
    conditions: ConditionsConfig = ConditionsConfig()
    schedule: ScheduleConfig = component(SCHEDULES, VPCosine())
    target: Target = component(TARGETS, targets.v)
    network: NetworkConfig = component(NETWORKS, UNetConfig())
    finetune: FinetuneConfig = FinetuneConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: EMAConfig = EMAConfig()
    training: TrainingConfig = TrainingConfig()
    input_scaling: bool = False
    length: str = "10 minutes"
    sampling: SamplingConfig = SamplingConfig()
    hooks: HooksConfig = HooksConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
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
        if self.conditions.names and not self.conditions.classes:
            raise ConfigError(
                "conditions.names is filled in when a run starts, and conditions.classes = false "
                "tells no class: set conditions.classes = true, and leave names out."
            )
        self.optimizer.check()
        refuse_pairs(self.optimizer.method, self.training, self.ema, self.finetune)
        for name, value, least in (
            ("seed", self.seed, 0),
            ("hooks.pictures", self.hooks.pictures, 1),
            ("hooks.keep_last", self.hooks.keep_last, 1),
            ("hooks.keep_every", self.hooks.keep_every, 0),
            ("sampling.steps", self.sampling.steps, 1),
            ("data.held_out", self.data.held_out, 0),
            *((f"hooks.{n}", getattr(self.hooks, n), 1) for n in _INTERVALS),
        ):
            if value != "auto" and value < least:
                raise ConfigError(f"{name} = {value}; expected {least} or more.")
        if self.training.curriculum is not None:
            self.training.curriculum.check(self.data.size, multiple=self.network.multiple)
        denoiser = self.build_denoiser("meta")
        self._choose(denoiser)
        refuse_loud_inputs(denoiser)
        loss = self.loss.build(denoiser.schedule, seed=self.seed)
        refuse_bursting_weights(denoiser, self.loss.weight)
        drawn = self.with_learned_grid(loss.times.knots())
        drawn.times(denoiser.schedule)
        if self.evaluation.every != 0:
            drawn._check_scores(denoiser.schedule)

    def _check_scores(self, schedule: NoiseSchedule) -> None:
        """Raise a ConfigError where the steps of [evaluation] do not fit the schedule."""
        try:
            self.sampling.grid(schedule, self.evaluation.steps)
        except ConfigError as error:
            raise ConfigError(f"evaluation.steps = {self.evaluation.steps}: {error}") from error

    def build_denoiser(self, device: str = "cpu") -> Denoiser:
        """The model, with weights drawn from the seed.

        Args:
            device: "cpu", or "meta" for shapes only, to check and to count.

        Raises:
            ConfigError: Network, size, schedule and target do not fit together.
            MissingExtraError: finetune.train = "lora", and peft is not installed.
        """
        curriculum = self.training.curriculum
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.manual_seed(mixed_seed(_WEIGHTS, self.seed))
            network = self.network.build(
                channels=CHANNELS,
                size=self.data.size,
                outputs=2 * CHANNELS if self.loss.bound > 0 else CHANNELS,
                takes=Takes(
                    coordinates=curriculum is not None and curriculum.coordinates,
                    augmentations=self.data.augment.labels,
                    classes=len(self.conditions.names),
                ),
            )
            if self.finetune.train == "lora":
                adapt(network, rank=self.finetune.rank, alpha=self.finetune.scale)
        schedule = self.schedule.build()
        native = self.finetune.native(schedule, self.target)
        return Denoiser(
            network,
            schedule,
            self.target,
            sigma_data=self._sigma_data(self.target if native is None else native.target),
            learned_variance=self.loss.bound > 0,
            native=native,
        )

    def _sigma_data(self, target: Target) -> float | None:
        """What the input of a network that says `target` is scaled for; None: it is left alone."""
        if isinstance(target, EDM):
            return target.sigma_data
        return _SIGMA_DATA if self.input_scaling else None

    def _choose(self, denoiser: Denoiser) -> None:
        """Let no more of a fine-tuned network learn than [finetune] says."""
        tuned = self.finetune
        if tuned.base:
            choose(denoiser.network, tuned.train, freeze=tuned.freeze, new=tuned.new)

    def build_optimizer(self, objective: Objective) -> torch.optim.Optimizer:
        """The optimiser over what learns; slower for what the base had, if [finetune] says so.

        Args:
            objective: Denoiser and loss; parameters that need no gradient are passed over.

        Raises:
            ConfigError: The method does not fit the parameters.
            MissingExtraError: The method's package is not installed.
        """
        learning = [(n, p) for n, p in objective.named_parameters() if p.requires_grad]
        optimizer = self.optimizer.build(learning)
        if self.finetune.old_rate != 1:
            prefix = "denoiser.network."
            old = [
                parameter
                for name, parameter in learning
                if name.startswith(prefix)
                and name.removeprefix(prefix) not in self.finetune.new
                and not is_adapter(name)
            ]
            scale_rate(optimizer, old, self.finetune.old_rate)
        return optimizer

    def times(self, schedule: NoiseSchedule) -> torch.Tensor:
        """The grid of times that [sampling] asks for.

        Raises:
            ConfigError: It does not fit the schedule, or is to be learned and was not filled in.
        """
        return self.sampling.grid(schedule, self.sampling.steps)

    def with_learned_grid(self, knots: tuple[float, ...] | None) -> "RunConfig":
        """The configuration with the grid "learned" filled in, where it asks for that.

        Args:
            knots: From `Times.knots`; None where nothing was learned.
        """
        grid = self.sampling.grid
        if knots is None or not isinstance(grid, grids.Learned) or grid.knots:
            return self
        return replace(self, sampling=replace(self.sampling, grid=grids.Learned(knots)))

    def wrap(self, denoise: Denoise) -> Denoise:
        """The denoiser with the threshold of [sampling]."""
        threshold = self.sampling.threshold
        return denoise if threshold is None else threshold(denoise)

    def build(
        self,
        prepared: PreparedSet,
        device: torch.device,
        hooks: Callable[["RunConfig"], Mapping[str, Hook]] = lambda config: {},
        *,
        processes: Processes = ALONE,
        kept: Kept | None = None,
        reserve: Mapping[str, float] = MappingProxyType({}),
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> Trainer:
        """The trainer, at the start of the run.

        Args:
            prepared: The pictures, of data.size.
            device: Where to train.
            hooks: Makes the hooks, by name.
            processes: Which of several processes that train together this is.
            kept: Where the pictures will lie, for who has asked `place` already; None: asked here.
            reserve: Seconds that a call of a hook is expected to take, by its name: see `Trainer`.
            weights: That the denoiser begins with, by the names of its state dict without adapters;
                None: those that the seed draws.

        Raises:
            ConfigError: Something does not fit together, or not this device.
            MissingExtraError: The optimiser needs a package that is not installed.
        """
        training = self.training
        if training.precision == "auto":
            raise ConfigError("training.precision = 'auto' must be resolved before a run is built.")
        told = self.conditions
        if told.classes and not told.names:
            raise ConfigError("conditions.names must be filled in before a run is built.")
        check_precision(training.precision, device)
        check_spread(
            training.parallel, processes, batch=training.batch, precision=training.precision
        )
        self.optimizer.check_on(device)
        if device.type == "cuda":
            allow_tf32(training.tf32)

        denoiser = self.build_denoiser()
        if weights is not None:
            begin(denoiser, weights)
        denoiser.to(device)
        self._choose(denoiser)
        loss = self.loss.build(denoiser.schedule, seed=self.seed).to(device)
        recompute(denoiser.network, training.gradient_checkpointing)
        if training.channels_last:
            denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if training.compile:
            denoiser.network.compile()
        objective = Objective(denoiser, loss)
        # Sharding replaces parameters, so it comes before whatever holds them.
        module = spread(objective, training.parallel, processes, device)
        optimizer = self.build_optimizer(objective)
        scaler = torch.amp.GradScaler(device.type) if training.precision == "fp16" else None
        gradients = Gradients(
            objective,
            module,
            device=device,
            precision=training.precision,
            scaler=scaler,
            seed=self.seed,
            micro_batch=0 if training.micro_batch == "auto" else training.micro_batch,
            channels_last=training.channels_last,
            curriculum=training.curriculum,
            classes=Classes(len(told.names), told.drop) if told.classes else None,
            processes=processes,
        )
        return Trainer(
            gradients,
            self._batches(prepared, device, processes, kept),
            optimizer,
            rate=self.optimizer.rate,
            schedule=self.optimizer.schedule,
            length=Length.parse(self.length, batch=training.batch),
            ema={**self.optimizer.averages(optimizer, denoiser), **self.ema.build(denoiser)},
            hooks=hooks(self),
            clip_norm=self.optimizer.clip_norm,
            retries=training.retries,
            reserve=reserve,
        )

    def _batches(
        self, prepared: PreparedSet, device: torch.device, processes: Processes, kept: Kept | None
    ) -> Callable[[int], Iterator[Batch]]:
        """From images seen to the batches that follow, of the pictures that are trained on."""
        train, _ = split(prepared.groups, check_split(prepared.groups, self.data.held_out))
        kept = kept or place(prepared, self.data.keep, device, processes=processes.local_world)
        pictures = keep(prepared, kept, device)
        return lambda images: batches(
            pictures,
            batch=self.training.batch,
            seed=self.seed,
            images=images,
            augmentation=self.data.augment,
            rows=processes.rows(self.training.batch),
            indices=train,
            device=device,
        )
