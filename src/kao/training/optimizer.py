"""The optimiser of a run: which method, at which rate."""

import math
from dataclasses import dataclass, field

import torch
from torch import nn

from kao.errors import ConfigError
from kao.training.optimizers import OPTIMIZERS, AdamW, Average, Method, Named, ScheduleFree
from kao.training.rates import RATES, RateSchedule, Trapezoid

_LATE = 10**12


@dataclass(frozen=True)
class OptimizerConfig:
    """[optimizer].

    Attributes:
        method: How a gradient becomes a step.
        rate: Peak learning rate.
        betas: Decay of the first and second moments.
        weight_decay: Decoupled weight decay.
        clip_norm: Largest norm of all gradients together; 0 leaves gradients alone.
        schedule: How the rate moves over the run.
    """

    method: Method = field(default=AdamW(), metadata={"registry": OPTIMIZERS})
    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    schedule: RateSchedule = field(default=Trapezoid(), metadata={"registry": RATES})

    def check(self) -> None:
        """Raise a ConfigError for a value outside its range, or two that do not go together."""
        if not 0 < self.rate < math.inf:
            raise ConfigError(
                f"optimizer.rate = {self.rate}; expected a finite number above 0, e.g. 1e-3."
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(
                f"optimizer.betas = {list(self.betas)}; expected two numbers, 0 or more, below 1."
            )
        for name in ("weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"optimizer.{name} = {getattr(self, name)} must be 0 or more, and finite."
                )
        if isinstance(self.method, ScheduleFree) and self.schedule(_LATE, 1.0) < 1:
            raise ConfigError(
                'optimizer.method = "schedule_free" averages in the place of a cool-down, and '
                'this optimizer.schedule falls: set optimizer.schedule = "constant".'
            )

    def check_on(self, device: torch.device) -> None:
        """Raise a ConfigError where the method cannot work on a device."""
        self.method.check(device)

    def build(self, named: Named) -> torch.optim.Optimizer:
        """The optimiser, with its rate at the peak; the trainer sets it at each step.

        Args:
            named: What is trained, with names as `nn.Module.named_parameters` gives them.

        Raises:
            ConfigError: A value is outside its range, or the method does not fit the parameters.
            MissingExtraError: The method's package is not installed.
        """
        self.check()
        return self.method.build(
            named, rate=self.rate, betas=self.betas, weight_decay=self.weight_decay
        )

    def averages(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Average]:
        """Averages that the method itself keeps, by name.

        Args:
            optimizer: From `build`.
            model: Whose parameters it trains.
        """
        return self.method.averages(optimizer, model)
