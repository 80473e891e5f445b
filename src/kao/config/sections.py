"""The tables of a configuration: one frozen dataclass each."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from kao.data.augment import AugmentConfig
from kao.diffusion import (
    DDIM,
    GRIDS,
    NORMS,
    SAMPLERS,
    THRESHOLDS,
    TIMES,
    WEIGHTS,
    Clip,
    DenoisingLoss,
    Grid,
    MinSNR,
    NoiseSchedule,
    Norm,
    Perceptual,
    Sampler,
    Threshold,
    TimesConfig,
    Uncertainty,
    Uniform,
    Weight,
    grids,
    norms,
)
from kao.errors import ConfigError
from kao.metrics import check_space, feature_maps
from kao.training import (
    CURRICULA,
    EMA,
    PAIR,
    Curriculum,
    average_name,
    check_width,
    fixed_decay,
    power_decay,
    warmed_decay,
)


def component(registry: Mapping[str, Any], default: Any) -> Any:
    """A field that holds one entry of a registry; see `config.tree`."""
    return field(default_factory=lambda: default, metadata={"registry": registry})


@dataclass(frozen=True)
class DataConfig:
    """[data]: which pictures, and how they are cut.

    Attributes:
        source: A folder, a zip file, "hf:NAME" or "toy".
        size: Side of the pictures that are learned, pixels.
        crop: "centre" square, whole picture "pad"ded, or "none": refuse what is not square.
        classes: First-level folders to take; empty takes all.
        fingerprint: Of the prepared pictures; filled in when a run starts.
        held_out: Pictures that are never trained on, for the held-out loss; "auto": 2 %, at most
            256, and none of fewer than 500.
        keep: Where the pictures lie while training: on the "disk", in "memory", on the "device";
            "auto": the last of these that has room.
        augment: What is done to each picture after loading.
    """

    source: str = ""
    size: int = 32
    crop: Literal["centre", "pad", "none"] = "centre"
    classes: tuple[str, ...] = ()
    fingerprint: str = ""
    held_out: int | Literal["auto"] = "auto"
    keep: Literal["auto", "disk", "memory", "device"] = "auto"
    augment: AugmentConfig = AugmentConfig()


@dataclass(frozen=True)
class PerceptualConfig:
    """[loss.perceptual]: how far the predicted picture is from the right one in features.

    Attributes:
        weight: Of the term; 0 leaves it out.
        network: "wavelets", which needs no download, or the path of a TorchScript file: LPIPS's
            VGG-16, or any network from pictures in [-1, 1] to features.
        below: Largest noise-to-signal ratio sigma / alpha at which the term counts: past it
            a prediction is an average of pictures, which features should not judge.

    Raises:
        ConfigError: weight is no number from 0 up, or below none above 0.
    """

    weight: float = 0.0
    network: str = "wavelets"
    below: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight or level that is none, before a network is looked for."""
        if not 0 <= self.weight < math.inf:
            raise ConfigError(
                f"loss.perceptual.weight = {self.weight}; expected a number from 0 up: 0 leaves "
                f"the term out."
            )
        if not 0 < self.below < math.inf:
            raise ConfigError(
                f"loss.perceptual.below = {self.below}; expected a number above 0: at 1 there is "
                f"as much noise as signal."
            )


@dataclass(frozen=True)
class LossConfig:
    """[loss].

    Attributes:
        times: Where on the schedule to train.
        weight: Weight on the squared error of x_0, as a function of snr.
        norm: What is averaged over a picture's residual.
        offset_noise: Standard deviation of noise that all pixels of a channel share, added to eps.
        input_perturbation: Standard deviation of noise that the network sees and is not asked for.
        bound: Weight of the variational bound, from which the network learns the variance of each
            step (0.001 as published); 0: no learned variance.
        uncertainty: Whether the noise levels are balanced by a learned uncertainty.
        perceptual: A term in the features of another network.
    """

    times: TimesConfig = component(TIMES, Uniform())
    weight: Weight | None = component(WEIGHTS, MinSNR())
    norm: Norm = component(NORMS, norms.l2)
    offset_noise: float = 0.0
    input_perturbation: float = 0.0
    bound: float = 0.0
    uncertainty: bool = False
    perceptual: PerceptualConfig = PerceptualConfig()

    def build(self, schedule: NoiseSchedule, *, seed: int) -> DenoisingLoss:
        """The loss, at the start of a run.

        Args:
            schedule: Of the denoiser.
            seed: Of the uncertainty's frequencies.

        Raises:
            ConfigError: A value is out of range, or the perceptual network cannot be loaded.
        """
        perceptual = self.perceptual
        return DenoisingLoss(
            self.times.build(schedule),
            weight=self.weight,
            norm=self.norm,
            offset_noise=self.offset_noise,
            input_perturbation=self.input_perturbation,
            bound=self.bound,
            uncertainty=Uncertainty(seed=seed) if self.uncertainty else None,
            perceptual=Perceptual(
                feature_maps(perceptual.network), weight=perceptual.weight, below=perceptual.below
            )
            if perceptual.weight != 0
            else None,
        )


@dataclass(frozen=True)
class EMAConfig:
    """[ema]: running averages of the weights; pictures are drawn with the first.

    Attributes:
        decay: Weight kept at each step, below 1.
        warmup: Keep less in the first steps, min(decay, (1 + k) / (10 + k)) after k of them, so
            that what a run began with is soon forgotten, however short it is.
        widths: Of averages with a power profile, tracked beside it: standard deviation of the
            profile as a share of the run (sigma_rel of Karras et al. 2024a), 0.001 .. 0.2887.
        snapshots: Images between snapshots of those averages, from which `kao ema` reconstructs
            any width; 0 takes none, "auto" 24 over the run.  Widths 0.05 and 0.25 are tracked for
            them where fewer than two are named.
        offload: Keep the averages in the CPU's memory; not with training.parallel = "fsdp".

    Raises:
        ConfigError: A value is out of range, or a width is named twice.
    """

    decay: float = 0.999
    warmup: bool = True
    widths: tuple[float, ...] = ()
    snapshots: int | Literal["auto"] = 0
    offload: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no decay and no width."""
        if not 0 <= self.decay < 1:
            raise ConfigError(f"ema.decay = {self.decay}; expected 0 or more, below 1.")
        for width in self.widths:
            check_width(width, name="ema.widths")
        if len(set(self.widths)) < len(self.widths):
            raise ConfigError(f"ema.widths = {list(self.widths)}; expected each width once.")
        if self.snapshots != "auto" and self.snapshots < 0:
            raise ConfigError(f"ema.snapshots = {self.snapshots}; expected 0 images or more.")

    @property
    def tracked(self) -> tuple[float, ...]:
        """Widths of the averages that are tracked, those for snapshots included."""
        enough = self.snapshots == 0 or len(self.widths) >= 2
        return self.widths if enough else tuple(dict.fromkeys((*self.widths, *PAIR)))

    def build(self, model: nn.Module) -> dict[str, EMA]:
        """The averages by name, the one with the fixed decay first."""
        fixed = warmed_decay(self.decay) if self.warmup else fixed_decay(self.decay)
        rules = {f"ema-{self.decay:g}": fixed}
        rules |= {average_name(width): power_decay(width) for width in self.tracked}
        return {name: EMA(model, rule, offload=self.offload) for name, rule in rules.items()}


@dataclass(frozen=True)
class TrainingConfig:
    """[training]: how the steps are computed.

    Only `batch`, `curriculum` and `precision` change what is learned by more than rounding.

    Attributes:
        batch: Pictures in a step, over all processes.
        precision: What the network computes in; "auto" asks the hardware when a run starts.
        micro_batch: Most pictures at once in a process, whose gradients are added up; "auto": all,
            halved while memory runs out.
        gradient_checkpointing: Recompute activations in the backward pass instead of keeping
            them: of residual "blocks", or of "all" parts (Chen et al. 2016).
        compile: Let torch.compile write kernels for the network; takes minutes at the start.
        channels_last: Lay arrays out with their channels innermost.
        tf32: Multiply float32 matrices in TF32 where a GPU can.
        parallel: How several processes share the work: "ddp" keeps the model in each, "fsdp"
            shards it over them.
        curriculum: What of each picture a step looks at; "none": all of it.
        retries: Steps in a row that may be skipped for a loss that is not finite.

    Raises:
        ConfigError: A number is out of range.
    """

    batch: int = 32
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    micro_batch: int | Literal["auto"] = "auto"
    gradient_checkpointing: Literal["none", "blocks", "all"] = "none"
    compile: bool = False
    channels_last: bool = False
    tf32: bool = True
    parallel: Literal["ddp", "fsdp"] = "ddp"
    curriculum: Curriculum | None = component(CURRICULA, None)
    retries: int = 3

    def __post_init__(self) -> None:
        """Refuse counts that are none."""
        for name in ("batch", "micro_batch", "retries"):
            value = getattr(self, name)
            if value != "auto" and value < (name != "retries"):
                least = "0" if name == "retries" else "1"
                raise ConfigError(f"training.{name} = {value}; expected {least} or more.")


@dataclass(frozen=True)
class GuidanceConfig:
    """[sampling.guidance]: steps away from what another model says, or the same one less informed.

    With `worse` that is a worse model (Karras et al. 2024b); without, and with classes, the same
    model that is not told the class (Ho & Salimans 2022).

    Attributes:
        worse: A run directory, or one of its checkpoints: a smaller or less trained model of the
            same pictures.  Empty: none, which guides where conditions.classes = true alone.
        scale: 1 follows the model alone; more goes away from the other.
        interval: Noise-to-signal ratios sigma / alpha between which it acts.
        rescale: Share, 0..1, of the contrast that guidance added to be taken back.

    Raises:
        ConfigError: A value is out of range, or a worse model is named at scale 1.  Whether a
            scale alone does anything, `runs.run.check_drawing` knows.
    """

    worse: str = ""
    scale: float = 1.0
    interval: tuple[float, float] = (0.0, math.inf)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot guide, and what would do nothing."""
        low, high = self.interval
        if not 0 <= self.scale < math.inf:
            raise ConfigError(
                f"sampling.guidance.scale = {self.scale}; expected a number from 0 up: 1 is no "
                f"guidance."
            )
        if not 0 <= low < high:
            raise ConfigError(
                f"sampling.guidance.interval = [{low}, {high}]; expected a noise-to-signal ratio "
                f"from 0 up and then a larger one, which may be inf."
            )
        if not 0 <= self.rescale <= 1:
            raise ConfigError(
                f"sampling.guidance.rescale = {self.rescale}; expected a share from 0 to 1: 0.7 "
                f"is the published value."
            )
        if self.worse and self.scale == 1:
            raise ConfigError(
                f'sampling.guidance.worse = "{self.worse}" does nothing at scale = 1: set '
                f"sampling.guidance.scale, of which 2 is customary, or leave worse out."
            )


@dataclass(frozen=True)
class SamplingConfig:
    """[sampling]: how pictures are drawn where nothing else is said.

    Attributes:
        sampler: How the path is integrated.
        grid: Where on it.
        steps: In how many steps.
        threshold: What is done to predicted pictures beyond what pixels can show, at each step.
        guidance: By a worse model, or by classes.
    """

    sampler: Sampler = component(SAMPLERS, DDIM())
    grid: Grid = component(GRIDS, grids.uniform)
    steps: int = 25
    threshold: Threshold | None = component(THRESHOLDS, Clip())
    guidance: GuidanceConfig = GuidanceConfig()


@dataclass(frozen=True)
class HooksConfig:
    """[hooks]: what happens during a run, in images between two times.

    "auto" spreads a fixed number over the run: 400 lines, 8 grids, 10 checkpoints, 40 held-out
    losses.

    Attributes:
        log: Between lines of metrics.jsonl.
        samples: Between sample grids.
        checkpoints: Between checkpoints.
        held_out: Between losses on pictures that are never trained on.
        pictures: In a sample grid.
        keep_last: Newest checkpoints that stay.
        keep_every: Images; the first checkpoint past each multiple stays too; 0 for none.
    """

    log: int | Literal["auto"] = "auto"
    samples: int | Literal["auto"] = "auto"
    checkpoints: int | Literal["auto"] = "auto"
    held_out: int | Literal["auto"] = "auto"
    pictures: int = 64
    keep_last: int = 2
    keep_every: int = 0


@dataclass(frozen=True)
class EvaluationConfig:
    """[evaluation]: how good the pictures are, told while training.

    Every so many images some pictures are drawn with the averaged weights, always from the same
    noise, and held against real ones.  Nothing of this changes what is learned.

    Attributes:
        every: Images between two scores; 0: none.  "auto": as many as `share` allows, at most
            12 over the run.
        pictures: Drawn for each; "auto": 64 to 512, as `share` allows.
        steps: Of the sampler dpm++2m on the log_snr grid, in which they are drawn: few, since
            scores are compared with one another.
        features: Name of the space in which pictures are compared: see `kao.metrics.SPACES`.
            Wavelets tell the stages of a run apart with the fewest pictures.
        share: Largest share of the time that scores may take, above 0 and at most 0.5.
        stop: "auto" ends the run where it grows no better; "never" leaves that to you.

    Raises:
        ConfigError: A value is out of range.
    """

    every: int | Literal["auto"] = "auto"
    pictures: int | Literal["auto"] = "auto"
    steps: int = 10
    features: str = "wavelets"
    share: float = 0.05
    stop: Literal["never", "auto"] = "never"

    def __post_init__(self) -> None:
        """Refuse counts that are none, and shares that leave no time to train."""
        for name, least in (("every", 0), ("pictures", 16), ("steps", 1)):
            value = getattr(self, name)
            if value != "auto" and value < least:
                raise ConfigError(f"evaluation.{name} = {value}; expected {least} or more.")
        check_space(self.features)
        if not 0 < self.share <= 0.5:
            raise ConfigError(
                f"evaluation.share = {self.share}; expected a share of the time above 0 and at "
                f"most 0.5, such as 0.05; evaluation.every = 0 takes no scores."
            )


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
