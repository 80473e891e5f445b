"""Which class a network is told of each picture while it trains: its own, or none."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Classes:
    """How classes are told, for guidance without a classifier (Ho & Salimans 2022, algorithm 1).

    Attributes:
        count: Of classes; the number after the last says nothing of the class.
        drop: Share of the pictures of which nothing is said, 0 or more and below 1.
    """

    count: int
    drop: float

    def kept_back(self, batch: int, generator: torch.Generator) -> Tensor:
        """Of which pictures of a batch nothing is said: bool, (batch,).

        Args:
            batch: Pictures in the whole batch, over all processes.
            generator: On the CPU.
        """
        return torch.rand(batch, generator=generator) < self.drop

    def told(self, labels: Tensor, kept_back: Tensor | None = None) -> Tensor:
        """What the network is told of some pictures.

        Args:
            labels: int64, (B,), 0 .. count - 1; -1 for a picture that is of no class.
            kept_back: bool, (B,), from `kept_back`; None: nothing is kept back.

        Returns:
            int64, (B,), 0 .. count.
        """
        silent = labels < 0
        if kept_back is not None:
            silent = silent | kept_back
        return labels.masked_fill(silent, self.count)
