"""AdamW, torch's own."""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from kao.shards import local, sharded
from kao.training.optimizers.method import Average, Named


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), fused into one kernel."""

    def check(self, device: torch.device) -> None:
        """See `Method`; it works everywhere."""

    def build(
        self, named: Named, *, rate: float, betas: tuple[float, float], weight_decay: float
    ) -> torch.optim.Optimizer:
        """See `Method`."""
        parameters = [parameter for _, parameter in named]
        optimizer = torch.optim.AdamW(
            parameters, lr=rate, betas=betas, weight_decay=weight_decay, fused=True
        )
        if any(sharded(parameter) for parameter in parameters):
            return ShardedAdamW(parameters, optimizer.defaults)
        return optimizer

    def averages(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Average]:
        """See `Method`; it keeps none."""
        return {}


class ShardedAdamW(torch.optim.Optimizer):
    """torch's AdamW for parameters of which some are sharded and others are not.

    torch refuses such a mixture in one group; its state and options are the same, so one goes on
    where the other stopped.

    Args:
        parameters: What is trained.
        defaults: Those of torch's AdamW.
    """

    def __init__(self, parameters: list[nn.Parameter], defaults: dict[str, Any]):
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients at hand; parameters without one stay."""
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            if trained:
                adamw_step(trained, self.state, group)


def adamw_step(
    parameters: list[nn.Parameter], state: MutableMapping[Tensor, Any], group: dict[str, Any]
) -> None:
    """One step of AdamW, each process moving its own part.

    Args:
        parameters: With gradients.
        state: Of each parameter: step, exp_avg, exp_avg_sq; filled in at the first step.
        group: Has lr, betas, eps and weight_decay.
    """
    for parameter in parameters:
        if not state[parameter]:
            state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    states = [state[p] for p in parameters]
    adamw(
        [local(p) for p in parameters],
        [local(p.grad) for p in parameters if p.grad is not None],
        [local(s["exp_avg"]) for s in states],
        [local(s["exp_avg_sq"]) for s in states],
        [],
        [s["step"] for s in states],
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
