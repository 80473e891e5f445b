"""What an optimiser is to a run: the interface of the entries of OPTIMIZERS."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

Named = Iterable[tuple[str, nn.Parameter]]
"""Parameters with their names, as `nn.Module.named_parameters` gives them."""


class Average(Protocol):
    """An average of a model's weights; `kao.training.EMA` is one."""

    @property
    def average(self) -> Mapping[str, Tensor]:
        """Name -> average, for every floating entry of the model's state dict."""

    @property
    def derived(self) -> bool:
        """Whether it is computed from weights and optimiser, and so keeps nothing of its own."""

    def update(self, images: int, batch: int) -> None:
        """Take in the weights after a step of `batch` images that brought it to `images`."""

    def distance(self) -> float:
        """How far the model is from it: |average - model| / |model|."""

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Take over saved averages."""


class Method(Protocol):
    """An entry of OPTIMIZERS: a frozen dataclass of options."""

    def check(self, device: torch.device) -> None:
        """Refuse a device that it cannot work on.

        Raises:
            ConfigError: It cannot.
        """

    def build(
        self, named: Named, *, rate: float, betas: tuple[float, float], weight_decay: float
    ) -> torch.optim.Optimizer:
        """The optimiser.  All that it remembers is in its `state_dict`.

        Args:
            named: What is trained; a method may treat parts differently by name and shape.
            rate: Learning rate; the trainer sets each group's "lr" at each step, to the rate
                times the group's "scale" where it has one.
            betas: Decay of the first and second moments.
            weight_decay: Decoupled weight decay.

        Raises:
            ConfigError: An option does not fit the parameters.
            MissingExtraError: A package is missing.
        """

    def averages(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Average]:
        """Averages that the method itself keeps, by name; the first is what is drawn with.

        Args:
            optimizer: From `build`.
            model: Whose parameters it trains; only read.
        """
