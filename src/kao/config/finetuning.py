"""[finetune]: what a run begins with, if not with noise, and what of that may change."""

import math
import re
from dataclasses import dataclass, field

from kao.diffusion import SCHEDULES, TARGETS, Native, NoiseSchedule, ScheduleConfig, Target
from kao.errors import ConfigError
from kao.networks.selecting import Train


@dataclass(frozen=True)
class FinetuneConfig:
    """[finetune]: of a run that began with another model's weights, as `kao finetune` begins one.

    Attributes:
        base: The model it began with; filled in, as the next four are.  Empty: noise.
        sha256: Of the base's weights.
        schedule: What the base's network was trained on, where the run has another: the network
            is asked at its own levels (see `diffusion.Native`).
        target: What the base's network says, where the run's target is another.
        new: Parameters that the base lacks, or has in another shape.
        train: What learns: "all"; "norms_attention": those, what scales and shifts the norms, and
            what is new; "lora": adapters on the layers inside of the blocks, and what is new.
        freeze: Blocks, from the first on, that stay what they were, with all before them.
        rank: Of the adapters.
        alpha: The adapters count alpha / rank times; 0: as much as their rank.
        old_rate: What the learning rate is multiplied by for what the base had.

    Raises:
        ConfigError: A value is out of range.
    """

    base: str = ""
    sha256: str = ""
    schedule: ScheduleConfig | None = field(
        default=None, metadata={"registry": {**SCHEDULES, "none": None}}
    )
    target: Target | None = field(default=None, metadata={"registry": {**TARGETS, "none": None}})
    new: tuple[str, ...] = ()
    train: Train = "all"
    freeze: int = 0
    rank: int = 8
    alpha: float = 0.0
    old_rate: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers that are out of range, and options that would do nothing."""
        for name, value, least in (("freeze", self.freeze, 0), ("rank", self.rank, 1)):
            if value < least:
                raise ConfigError(f"finetune.{name} = {value}; expected {least} or more.")
        if not 0 <= self.alpha < math.inf:
            raise ConfigError(
                f"finetune.alpha = {self.alpha}; expected a number above 0, or 0 for the rank."
            )
        if not 0 < self.old_rate < math.inf:
            raise ConfigError(
                f"finetune.old_rate = {self.old_rate}; expected a number above 0: below 1 is "
                f'slower for what the base had, and finetune.freeze or train = "norms_attention" '
                f"keep some of it as it was."
            )
        if self.schedule is not None:
            try:
                self.schedule.build()
            except ConfigError as error:  # it knows the name of its own table only
                message = re.sub(r"(?<![\w.])schedule\.", "finetune.schedule.", str(error))
                raise ConfigError(message) from None

    @property
    def scale(self) -> float:
        """The alpha of the adapters."""
        return self.alpha or float(self.rank)

    def native(self, schedule: NoiseSchedule, target: Target) -> Native | None:
        """What the network was made for, if that is not what the run has.

        Args:
            schedule: The run's.
            target: The run's.
        """
        if self.schedule is None and self.target is None:
            return None
        return Native(
            schedule if self.schedule is None else self.schedule.build(),
            target if self.target is None else self.target,
        )
