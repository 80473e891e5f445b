"""Adan: adaptive Nesterov momentum from differences of gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kao.errors import ConfigError
from kao.shards import local
from kao.training.optimizers.method import Average, Named

_EPSILON = 1e-8
_STATE = ("gradient", "first", "change", "second")


@dataclass(frozen=True)
class Adan:
    """Adan (Xie et al. 2022, algorithm 1), with Adam's correction of the averages' first steps.

    Its betas are written as what is kept, so optimizer.betas[0] is 1 - beta_1 of the paper and
    betas[1] is 1 - beta_3.  Published: (0.98, 0.99), with a rate five to ten times AdamW's.  It
    keeps four numbers a weight, where AdamW keeps two.

    Attributes:
        difference: What is kept of the average difference of gradients at each step, below 1:
            1 - beta_2 of the paper.

    Raises:
        ConfigError: difference is outside its range.
    """

    difference: float = 0.92

    def __post_init__(self) -> None:
        """Refuse what is no decay."""
        if not 0 <= self.difference < 1:
            raise ConfigError(
                f"optimizer.method.difference = {self.difference}; expected 0 or more, below 1: "
                f"0.92 is the published value."
            )

    def check(self, device: torch.device) -> None:
        """See `Method`; it works everywhere."""

    def build(
        self, named: Named, *, rate: float, betas: tuple[float, float], weight_decay: float
    ) -> torch.optim.Optimizer:
        """See `Method`."""
        defaults = {
            "lr": rate,
            "betas": betas,
            "difference": self.difference,
            "weight_decay": weight_decay,
        }
        return AdanOptimizer([parameter for _, parameter in named], defaults)

    def averages(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Average]:
        """See `Method`; it keeps none."""
        return {}


class AdanOptimizer(torch.optim.Optimizer):
    """What `Adan` builds; state of a parameter: step, gradient, first, change, second.

    Args:
        parameters: What is trained.
        defaults: lr, betas, difference, weight_decay.
    """

    def __init__(self, parameters: list[nn.Parameter], defaults: dict[str, Any]):
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients at hand; parameters without one stay."""
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            for parameter in trained:
                if not self.state[parameter]:
                    self.state[parameter] = _blank(parameter)
            # Parameters of one group may have begun at different steps; in practice all are one.
            counts = sorted({self.state[p]["step"] for p in trained})
            for count in counts:
                self._move([p for p in trained if self.state[p]["step"] == count], group, count + 1)

    def _move(self, parameters: list[nn.Parameter], group: dict[str, Any], step: int) -> None:
        (keep1, keep3), keep2 = group["betas"], group["difference"]
        rate, decay = group["lr"], group["weight_decay"]
        states = [self.state[p] for p in parameters]
        gradients = [local(p.grad) for p in parameters if p.grad is not None]
        before, m, v, n = ([local(state[name]) for state in states] for name in _STATE)

        change = torch._foreach_sub(gradients, before) if step > 1 else _zeros(gradients)
        torch._foreach_lerp_(m, gradients, 1 - keep1)
        torch._foreach_lerp_(v, change, 1 - keep2)
        ahead = torch._foreach_add(gradients, torch._foreach_mul(change, keep2))
        torch._foreach_mul_(n, keep3)
        torch._foreach_addcmul_(n, ahead, ahead, 1 - keep3)

        move = torch._foreach_div(m, 1 - keep1**step)
        torch._foreach_add_(move, torch._foreach_mul(v, keep2 / (1 - keep2**step)))
        size = torch._foreach_sqrt(torch._foreach_div(n, 1 - keep3**step))
        torch._foreach_add_(size, _EPSILON)
        weights = [local(p) for p in parameters]
        torch._foreach_addcdiv_(weights, move, size, -rate)
        torch._foreach_div_(weights, 1 + rate * decay)

        torch._foreach_copy_(before, gradients)
        for state in states:
            state["step"] = step


def _blank(parameter: nn.Parameter) -> dict[str, Any]:
    return {"step": 0, **{name: torch.zeros_like(parameter) for name in _STATE}}


def _zeros(tensors: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(tensor) for tensor in tensors]
