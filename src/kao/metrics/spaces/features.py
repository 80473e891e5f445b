"""What a feature space is."""

from typing import Protocol, Self

import torch
from torch import Tensor


class Features(Protocol):
    """A feature space: pictures to vectors whose distances mean something."""

    @property
    def name(self) -> str:
        """What results are labelled with; it changes whenever the numbers do."""

    @property
    def width(self) -> int | None:
        """Numbers a picture becomes; None where that depends on its size."""

    @property
    def resize(self) -> str:
        """What is done to the size of pictures, in words."""

    def __call__(self, images: Tensor) -> Tensor:
        """Features of pictures, without gradients.

        Args:
            images: uint8, (B, 3, H, W), RGB, on the device of the space.

        Returns:
            float32, (B, width), on that device.
        """

    def to(self, device: torch.device) -> Self:
        """Move the space to a device; returns itself."""
