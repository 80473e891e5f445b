"""Networks: arrays to arrays.  Nothing in this room knows of schedules, targets or losses."""

from typing import Any, Protocol

from torch import Tensor

from kao.networks.unet import UNet, UNetConfig


class Network(Protocol):
    """What a denoiser wraps."""

    def __call__(self, x: Tensor, label: Tensor, condition: Any) -> Tensor:
        """Map (B, C, H, W), (B,), condition -> (B, C, H, W)."""


NETWORKS = {"unet": UNetConfig}

__all__ = ["NETWORKS", "Network", "UNet", "UNetConfig"]
