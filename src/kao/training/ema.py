"""Exponential moving averages of a model's weights."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def warmed_decay(decay: float) -> Callable[[int, int], float]:
    """A fixed decay that starts small, min(decay, (1 + k) / (10 + k)) after k updates.

    Without the warm-up a short run is averaged with its own random beginning.  The form is
    TensorFlow's ExponentialMovingAverage(num_updates=k).

    Args:
        decay: Weight kept at each update, 0..1.

    Returns:
        A function of (images seen, batch) for `EMA`.
    """

    def rule(images: int, batch: int) -> float:
        updates = images // batch
        return min(decay, (1 + updates) / (10 + updates))

    return rule


class EMA:
    """Averages of a model's weights under one decay rule.

    Args:
        model: What is averaged; only read.
        decay: Weight kept at an update, from (images seen, batch).

    Attributes:
        average: Name -> float32 average, for every floating entry of the state dict.
    """

    def __init__(self, model: nn.Module, decay: Callable[[int, int], float]):
        self.decay = decay
        entries = model.state_dict().items()
        self._live = {name: value for name, value in entries if value.is_floating_point()}
        self.average = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self, images: int, batch: int) -> None:
        """Move every average towards the model, after a step that brought it to `images`.

        Args:
            images: Images seen, this step's included.
            batch: Images in this step.
        """
        weight = 1 - self.decay(images, batch)
        torch._foreach_lerp_(list(self.average.values()), list(self._live.values()), weight)

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Take over saved averages; names and shapes must be the model's."""
        for name, value in self.average.items():
            value.copy_(average[name])
