"""Networks: arrays to arrays.  Nothing in this room knows of schedules, targets or losses."""

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from kao.networks.conditions import Conditions, Takes
from kao.networks.dit import SHAPES, DiT, DiTConfig
from kao.networks.edm2 import EDM2
from kao.networks.edm2_config import EDM2Config
from kao.networks.linear_unet import LinearUNet, LinearUNetConfig
from kao.networks.recompute import Part
from kao.networks.unet import UNet
from kao.networks.unet_config import UNetConfig


class Network(Protocol):
    """What a denoiser wraps."""

    def __call__(self, x: Tensor, label: Tensor, condition: Conditions | None) -> Tensor:
        """Map (B, C, H, W), (B,), condition -> (B, C, H, W)."""

    def blocks(self) -> Iterable[Part]:
        """See `recompute.Divided`."""

    def parts(self) -> Iterable[Part]:
        """See `recompute.Divided`."""


NETWORKS = {
    "unet": UNetConfig,
    "dit": DiTConfig,
    "linear_unet": LinearUNetConfig,
    "edm2": EDM2Config,
}

__all__ = [
    "EDM2",
    "NETWORKS",
    "SHAPES",
    "Conditions",
    "DiT",
    "DiTConfig",
    "EDM2Config",
    "LinearUNet",
    "LinearUNetConfig",
    "Network",
    "Takes",
    "UNet",
    "UNetConfig",
]
