"""Networks: arrays to arrays.  Nothing in this room knows of schedules, targets or losses."""

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from kao.networks.conditions import Conditions, Takes
from kao.networks.recompute import Part
from kao.networks.unet import UNet, UNetConfig


class Network(Protocol):
    """What a denoiser wraps."""

    def __call__(self, x: Tensor, label: Tensor, condition: Conditions | None) -> Tensor:
        """Map (B, C, H, W), (B,), condition -> (B, C, H, W)."""

    def blocks(self) -> Iterable[Part]:
        """See `recompute.Divided`."""

    def parts(self) -> Iterable[Part]:
        """See `recompute.Divided`."""


NETWORKS = {"unet": UNetConfig}

__all__ = ["NETWORKS", "Conditions", "Network", "Takes", "UNet", "UNetConfig"]
