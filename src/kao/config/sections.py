"""The tables of a configuration that need no file of their own: one frozen dataclass each."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from kao.config.tree import component
from kao.data.augment import AugmentConfig
from kao.errors import ConfigError
from kao.metrics import check_space
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
