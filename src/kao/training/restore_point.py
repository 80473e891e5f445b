"""A copy, on the CPU, of all that a step changes; and going back to it."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kao.shards import local
from kao.training.optimizers import Average


class RestorePoint:
    """What a run had learned at one moment.

    Holds the weights, what the loss learned, the averages, and the state of optimiser and loss
    scaler: what a checkpoint holds, without the files.  Of tensors that processes share out
    between them each keeps its own part.

    Args:
        objective: Denoiser and loss.
        averages: Running averages of the weights, by name.
        optimizer: Over the parameters of the objective.
        scaler: Of fp16.
        images: Images seen.

    Attributes:
        images: Images seen when it was taken.
    """

    def __init__(
        self,
        objective: nn.Module,
        averages: Mapping[str, Average],
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None,
        *,
        images: int,
    ):
        self.images = images
        self._objective, self._averages = objective, averages
        self._optimizer, self._scaler = optimizer, scaler
        self._tensors = {name: _copied(tensor) for name, tensor in self._live().items()}
        self._state = {p: _copied(state) for p, state in optimizer.state.items()}
        self._groups = [
            {name: _copied(value) for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        self._scale = None if scaler is None else copy.deepcopy(scaler.state_dict())

    @property
    def finite(self) -> bool:
        """Whether every weight and average is."""
        floating = (t for t in self._tensors.values() if t.is_floating_point())
        return all(bool(tensor.isfinite().all()) for tensor in floating)

    def _live(self) -> dict[str, Tensor]:
        """The tensors that training changes in place, by name."""
        tensors = {f"objective/{name}": t for name, t in self._objective.state_dict().items()}
        for kind, average in self._averages.items():
            tensors |= {f"{kind}/{name}": t for name, t in average.average.items()}
        return tensors

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back in place, as it was."""
        for name, tensor in self._live().items():
            local(tensor).copy_(self._tensors[name])
        for parameter, live in self._optimizer.state.items():
            saved = self._state.get(parameter, {})
            for name in [name for name in live if name not in saved]:
                del live[name]  # born after it
            for name, value in saved.items():
                if isinstance(value, Tensor):
                    local(live[name]).copy_(value)
                else:
                    live[name] = _copied(value)
        for group, saved in zip(self._optimizer.param_groups, self._groups, strict=True):
            group.update({name: _copied(value) for name, value in saved.items()})
        if self._scaler is not None and self._scale:
            self._scaler.load_state_dict(copy.deepcopy(self._scale))


def _copied(value: Any) -> Any:
    """A copy that nothing changes, its tensors on the CPU; values inside of lists stay put."""
    if isinstance(value, Tensor):
        return local(value.detach()).to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: _copied(inner) for name, inner in value.items()}
    return copy.deepcopy(value)
