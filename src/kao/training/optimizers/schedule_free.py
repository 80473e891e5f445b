"""Schedule-Free AdamW: an average of the iterates in the place of a cool-down."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kao.errors import ConfigError
from kao.shards import local
from kao.training.ema import relative_distance
from kao.training.optimizers.method import Average, Named

_EPSILON = 1e-8


@dataclass(frozen=True)
class ScheduleFree:
    """Schedule-Free AdamW (Defazio et al. 2024, algorithm 1).

    Three sequences: z takes AdamW's steps without momentum, x is the average of all z, and the
    gradient is taken at y between the two.  The model's weights are y while it trains; x is what
    pictures are drawn with, and is listed among the run's averages.  No cool-down is needed, so
    the run may be stopped, or made longer, at any time: use it with a rate that only warms up
    and then stays, optimizer.schedule = "constant".  Each z weighs in x by the square of its
    rate, which takes the warm-up out.

    Attributes:
        momentum: Share of x in y, above 0 and below 1.  It takes the place of optimizer.betas[0],
            which is not used.

    Raises:
        ConfigError: momentum is outside its range.
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        """Refuse a y that would be x or z alone."""
        if not 0 < self.momentum < 1:
            raise ConfigError(
                f"optimizer.method.momentum = {self.momentum}; expected a number between 0 and "
                f"1: 0.9 is the published value."
            )

    def check(self, device: torch.device) -> None:
        """See `Method`; it works everywhere."""

    def build(
        self, named: Named, *, rate: float, betas: tuple[float, float], weight_decay: float
    ) -> torch.optim.Optimizer:
        """See `Method`; of the betas only the second is used."""
        defaults = {
            "lr": rate,
            "momentum": self.momentum,
            "beta2": betas[1],
            "weight_decay": weight_decay,
        }
        return ScheduleFreeOptimizer([parameter for _, parameter in named], defaults)

    def averages(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Average]:
        """The sequence x, under the name "schedule-free"."""
        return {"schedule-free": Iterate(optimizer, model)}


class ScheduleFreeOptimizer(torch.optim.Optimizer):
    """What `ScheduleFree` builds; parameters hold y, and their state z and second.

    Each group counts its steps, and the sum of the weights in x, under "step" and "sum".

    Args:
        parameters: What is trained.
        defaults: lr, momentum, beta2, weight_decay.
    """

    def __init__(self, parameters: list[nn.Parameter], defaults: dict[str, Any]):
        super().__init__(parameters, {**defaults, "step": 0, "sum": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients at hand; parameters without one stay."""
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            for parameter in trained:
                if not self.state[parameter]:
                    self.state[parameter] = {
                        "z": parameter.detach().clone(),
                        "second": torch.zeros_like(parameter),
                    }
            gradients = [local(p.grad) for p in trained if p.grad is not None]
            y = [local(p) for p in trained]
            z = [local(self.state[p]["z"]) for p in trained]
            v = [local(self.state[p]["second"]) for p in trained]
            beta1, beta2 = group["momentum"], group["beta2"]

            group["step"] += 1
            rate = group["lr"] * math.sqrt(1 - beta2 ** group["step"])
            group["sum"] += rate**2
            c = rate**2 / group["sum"] if rate > 0 else 0.0
            torch._foreach_mul_(v, beta2)
            torch._foreach_addcmul_(v, gradients, gradients, 1 - beta2)
            size = torch._foreach_sqrt(v)
            torch._foreach_add_(size, _EPSILON)
            move = torch._foreach_div(gradients, size)
            torch._foreach_add_(move, torch._foreach_mul(y, group["weight_decay"]))

            # z <- z - rate move;  x <- (1 - c) x + c z;  y <- (1 - beta1) z + beta1 x, with
            # x = (y - (1 - beta1) z) / beta1 put in, so that x need not be kept.
            torch._foreach_lerp_(y, z, c)
            torch._foreach_add_(y, move, alpha=-rate * (1 - beta1 * (1 - c)))
            torch._foreach_add_(z, move, alpha=-rate)


class Iterate:
    """The sequence x of Schedule-Free, read out of the optimiser; an `Average`.

    Args:
        optimizer: From `ScheduleFree.build`.
        model: Whose parameters it trains; only read.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, model: nn.Module):
        self._optimizer, self._model = optimizer, model

    @property
    def derived(self) -> bool:
        """See `Average`."""
        return True

    @property
    @torch.no_grad()
    def average(self) -> dict[str, Tensor]:
        """Name -> x, computed anew at each reading; what is not trained is as in the model."""
        shares = {
            parameter: group["momentum"]
            for group in self._optimizer.param_groups
            for parameter in group["params"]
        }
        entries = {
            name: value.detach().clone()
            for name, value in self._model.state_dict().items()
            if value.is_floating_point()
        }
        for name, parameter in self._model.named_parameters(remove_duplicate=False):
            state = self._optimizer.state.get(parameter)
            if state:
                beta1 = shares[parameter]
                # x = (y - (1 - beta1) z) / beta1
                entries[name].lerp_(state["z"], 1 - 1 / beta1)
        return entries

    def update(self, images: int, batch: int) -> None:
        """Nothing: the optimiser's step has moved it."""

    def distance(self) -> float:
        """See `Average`."""
        live = self._model.state_dict()
        averages = self.average
        return relative_distance(averages.values(), [live[name] for name in averages])

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Nothing: it follows from the weights and the optimiser's state."""
