"""What training times are: a draw, whoever draws it, and its shares."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kao.diffusion.schedules import NoiseSchedule


class Draw(NamedTuple):
    """The times of a batch.

    Attributes:
        t: In (0, t_max], whole numbers 1..T on a discrete schedule; float64 on the CPU, (B,).
        weight: What each image's loss is multiplied by so that the mean is that of the stated
            objective; 1 where the density drawn from is the objective.  float64 on the CPU, (B,).
    """

    t: Tensor
    weight: Tensor


class Times(nn.Module, ABC):
    """Draws training times.  A module, so that what it learns is saved with a run.

    Args:
        schedule: Whose times.
    """

    def __init__(self, schedule: NoiseSchedule):
        super().__init__()
        self.schedule = schedule

    @abstractmethod
    def forward(self, batch: int, generator: torch.Generator) -> Draw:
        """Draw the times of `batch` images from a CPU generator."""

    def update(self, t: Tensor, loss: Tensor, error: Tensor) -> None:
        """Learn from a batch; fixed times do not.

        Args:
            t: The times drawn, float64 on the CPU, (B,).
            loss: What each image's gradient grows with, before `Draw.weight`: `Losses.pull`,
                float64 on the CPU, (B,).
            error: Mean squared error of x_0 of each image, `Losses.error`, float64 on the CPU,
                (B,).
        """
        return None

    def knots(self, count: int = 65) -> tuple[float, ...] | None:
        """The learned density's quantile function, for the `learned` grid.

        Args:
            count: How many knots, at least 2.

        Returns:
            Shares of t_max, increasing strictly from 0 to 1: the times at equally spaced shares
            of the probability.  None if nothing is learned.
        """
        return None


class TimesConfig(Protocol):
    """A frozen dataclass that describes training times."""

    def build(self, schedule: NoiseSchedule) -> Times:
        """Make the times of a schedule."""


def shares(batch: int, generator: torch.Generator, *, stratified: bool) -> Tensor:
    """Uniform numbers in [0, 1), each one uniform by itself.

    Args:
        batch: B.
        generator: On the CPU.
        stratified: Draw one in each B-th part, in random order, so that no batch misses a noise
            band; the aim of Kingma et al. (2021), appendix I.1.

    Returns:
        float64, (B,).
    """
    u = torch.rand(batch, generator=generator, dtype=torch.float64)
    if stratified:
        u = (torch.randperm(batch, generator=generator) + u) / batch
    # (B - 1 + u) / B may round up to 1, which is outside [0, 1).
    return u.clamp(max=1 - 2**-53)
