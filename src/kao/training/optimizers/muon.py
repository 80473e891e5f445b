"""Muon: orthogonalised momentum for the matrices inside a network, AdamW for the rest."""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kao.errors import ConfigError
from kao.shards import full, like, local
from kao.training.optimizers.adamw import adamw_step
from kao.training.optimizers.method import Average, Named
from kao.training.optimizers.orthogonal import orthogonalised

_EPSILON = 1e-8


@dataclass(frozen=True)
class Muon:
    """Muon (Jordan et al. 2024), scaled to take AdamW's rate and decay (Liu et al. 2025).

    A step moves a matrix by the orthogonalised Nesterov momentum of its gradient, so that all
    its directions move alike.  A convolution's kernel counts as the matrix (out, in * k * k).
    The factor `factor * sqrt(max(rows, columns))` gives the update the size of AdamW's.

    Which parameters are such matrices is told by name and shape: two dimensions or more, the
    smaller side of the matrix at least `least`, and none of `others` in its dotted name.
    Everything else is trained by AdamW with optimizer.betas: vectors (norms, biases), the first
    and the last layer, embeddings of the noise level, of what was done to a picture, of its
    class and of positions, and what the loss learns.

    Attributes:
        momentum: What is kept of the momentum at each step, below 1.
        factor: Size of an update's entries, root mean square, before the learning rate.
        least: Smallest side of a matrix that is worth it; below, AdamW does as well.
        others: Parts of dotted names that AdamW trains, such as "network.conv_in" of
            "denoiser.network.conv_in.weight".  The default names the outer layers of all networks,
            their embeddings and all of the loss.

    Raises:
        ConfigError: A value is outside its range.
    """

    momentum: float = 0.95
    factor: float = 0.2
    least: int = 8
    others: tuple[str, ...] = (
        "network.embed",
        "network.augmented",
        "network.classes",
        "network.positions",
        "network.conv_in",
        "network.conv_out",
        "loss",
    )

    def __post_init__(self) -> None:
        """Refuse values that cannot be."""
        if not 0 <= self.momentum < 1:
            raise ConfigError(
                f"optimizer.method.momentum = {self.momentum}; expected 0 or more, below 1."
            )
        if not 0 < self.factor < math.inf:
            raise ConfigError(
                f"optimizer.method.factor = {self.factor}; expected a number above 0: 0.2 gives "
                f"updates of AdamW's size."
            )
        if self.least < 1:
            raise ConfigError(
                f"optimizer.method.least = {self.least}; expected a side of 1 or more."
            )

    def check(self, device: torch.device) -> None:
        """See `Method`; it works everywhere."""

    def build(
        self, named: Named, *, rate: float, betas: tuple[float, float], weight_decay: float
    ) -> torch.optim.Optimizer:
        """See `Method`.

        Raises:
            ConfigError: No parameter is a matrix that Muon would train.
        """
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in named:
            (matrices if self._takes(name, parameter) else rest).append(parameter)
        if not matrices:
            raise ConfigError(
                f'optimizer.method = "muon" finds no matrix to train: none with sides of '
                f"{self.least} or more is left beside {', '.join(self.others) or 'nothing'}; take "
                f'"adamw", a wider network, or change optimizer.method.least or others.'
            )
        common = {"lr": rate, "weight_decay": weight_decay}
        groups: list[dict[str, Any]] = [
            {
                "params": matrices,
                "orthogonal": True,
                "momentum": self.momentum,
                "factor": self.factor,
                **common,
            }
        ]
        if rest:
            # torch reads "fused" to put the counts of AdamW's steps where its kernel wants them.
            adamw = {"orthogonal": False, "betas": betas, "eps": _EPSILON, "fused": True}
            groups.append({"params": rest, **adamw, **common})
        return MuonOptimizer(groups)

    def averages(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Average]:
        """See `Method`; it keeps none."""
        return {}

    def _takes(self, name: str, parameter: nn.Parameter) -> bool:
        if parameter.ndim < 2 or any(f".{other}." in f".{name}." for other in self.others):
            return False
        return min(len(parameter), parameter.numel() // max(1, len(parameter))) >= self.least


class MuonOptimizer(torch.optim.Optimizer):
    """What `Muon` builds; state of a matrix: momentum; of the rest: AdamW's.

    Args:
        groups: Each with "orthogonal": whether Muon or AdamW trains it.
    """

    def __init__(self, groups: list[dict[str, Any]]):
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients at hand; parameters without one stay."""
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            if trained and group["orthogonal"]:
                self._muon(trained, group)
            elif trained:
                adamw_step(trained, self.state, group)

    def _muon(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        rate, keep = group["lr"], group["momentum"]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [local(self.state[p]["momentum"]) for p in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_lerp_(momenta, [local(g) for g in gradients], 1 - keep)
        # Nesterov: the gradient once more, mixed with the momentum that it is in already.
        torch._foreach_lerp_([local(g) for g in gradients], momenta, keep)

        torch._foreach_mul_([local(p) for p in parameters], 1 - rate * group["weight_decay"])
        alike: dict[torch.Size, list[int]] = defaultdict(list)
        for i, parameter in enumerate(parameters):
            alike[parameter.shape].append(i)
        for shape, indices in alike.items():
            rows = shape[0]
            whole = [full(gradients[i]) for i in indices]
            matrices = torch.stack([gradient.reshape(rows, -1) for gradient in whole])
            size = group["factor"] * math.sqrt(max(matrices.shape[-2:]))
            updates = orthogonalised(_fast(matrices)).to(matrices.dtype)
            for i, update in zip(indices, updates, strict=True):
                own = local(like(update.reshape(shape), parameters[i]))
                local(parameters[i]).add_(own, alpha=-rate * size)


def _fast(matrices: Tensor) -> Tensor:
    """In the type whose products are fastest: bfloat16 on a GPU, float32 on a CPU."""
    return matrices if matrices.device.type == "cpu" else matrices.bfloat16()
