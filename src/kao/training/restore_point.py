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

    It takes as much of the machine's memory as there is to copy, a process, and no more while it
    is taken anew: tensors are copied over those of the time before.

    Args:
        objective: Denoiser and loss.
        averages: Running averages of the weights, by name.
        optimizer: Over the parameters of the objective.
        scaler: Of fp16.

    Attributes:
        images: Images seen when it was taken; None before.
    """

    def __init__(
        self,
        objective: nn.Module,
        averages: Mapping[str, Average],
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None,
    ):
        self.images: int | None = None
        self._objective, self._averages = objective, averages
        self._optimizer, self._scaler = optimizer, scaler
        self._tensors: dict[str, Any] = {}
        self._state: dict[Any, dict[str, Any]] = {}
        self._groups: list[dict[str, Any]] = []
        self._scale: dict[str, Any] | None = None

    @property
    def worth(self) -> bool:
        """Whether every weight and average is finite as it is now."""
        floating = (local(t) for t in self._live().values() if t.is_floating_point())
        return all(bool(tensor.isfinite().all()) for tensor in floating)

    @torch.no_grad()
    def take(self, images: int) -> None:
        """Copy everything as it is now.

        Args:
            images: Images seen.
        """
        optimizer = self._optimizer
        self._tensors = _copied(self._live(), self._tensors)
        self._state = _copied(dict(optimizer.state), self._state)
        self._groups = [
            _copied({name: value for name, value in group.items() if name != "params"})
            for group in optimizer.param_groups
        ]
        self._scale = None if self._scaler is None else copy.deepcopy(self._scaler.state_dict())
        self.images = images

    def _live(self) -> dict[str, Tensor]:
        """The tensors that training changes in place, by name."""
        tensors = {f"objective/{name}": t for name, t in self._objective.state_dict().items()}
        for kind, average in self._averages.items():
            if not average.derived:
                tensors |= {f"{kind}/{name}": t for name, t in average.average.items()}
        return tensors

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back in place, as it was when it was taken."""
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
            group.update(_copied(saved))
        if self._scaler is not None and self._scale:
            self._scaler.load_state_dict(copy.deepcopy(self._scale))


def _copied(value: Any, old: Any = None) -> Any:
    """A copy that nothing changes, its tensors on the CPU; values inside of lists stay put.

    Args:
        value: To copy.
        old: An earlier copy, which is given up: its tensors are written over where they fit.
    """
    if isinstance(value, Tensor):
        part = local(value.detach())
        if isinstance(old, Tensor) and (old.shape, old.dtype) == (part.shape, part.dtype):
            return old.copy_(part)
        return part.to("cpu", copy=True)
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        return {name: _copied(inner, before.get(name)) for name, inner in value.items()}
    return copy.deepcopy(value)
