"""A distance between images as some features see them, added where the image can be told."""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from kao.diffusion.schedules import Level
from kao.errors import ConfigError


@dataclass(frozen=True)
class Perceptual:
    """weight |f(x0_hat) - f(x_0)|^2 at levels with sigma / alpha < below.

    At noisier levels x0_hat is a blurred mean of many images, which no image's features describe.

    Not an `nn.Module`, so that a loss that holds it counts none of the features' numbers among its
    own: they are neither trained nor saved.  A module given as `features` is frozen and put into
    eval mode, here, for good, and follows the images to their device.

    Attributes:
        features: f, from (B, 3, H, W) floats, [-1, 1] where predictions are good, to (B, D).
        weight: At least 0.
        below: In units of sigma / alpha, above 0.

    Raises:
        ConfigError: weight or below is out of range.
    """

    features: Callable[[Tensor], Tensor]
    _: KW_ONLY
    weight: float
    below: float

    def __post_init__(self) -> None:
        """Refuse a weight or level that is none, and freeze the features."""
        if not 0 <= self.weight < math.inf:
            raise ConfigError(
                f"loss.perceptual.weight = {self.weight}, but it must be a number from 0 up: "
                f"0 turns the features off."
            )
        if not 0 < self.below < math.inf:
            raise ConfigError(
                f"loss.perceptual.below = {self.below}, but the level is a positive number: at 1 "
                f"there is as much noise as signal."
            )
        if isinstance(self.features, nn.Module):
            self.features.requires_grad_(False).eval()

    def __call__(self, x0_hat: Tensor, x0: Tensor, level: Level) -> Tensor:
        """The addition to each image's loss; the features never see an image above the level.

        Args:
            x0_hat: Predicted images, (B, 3, H, W); gradients flow to them.
            x0: Clean images, same shape.
            level: Of the noisy images, fields (B,), float64 on the CPU.

        Returns:
            (B,), like `x0`; in full precision under autocast too.
        """
        near = (level.sigma < self.below * level.alpha).nonzero()[:, 0].to(x0.device)
        added = x0.new_zeros(len(x0))
        if len(near) == 0 or self.weight == 0:
            return added
        if isinstance(self.features, nn.Module):
            self.features.to(x0.device)
        with torch.autocast(x0.device.type, enabled=False):
            with torch.no_grad():
                goal = self.features(x0[near])
            distance = (self.features(x0_hat[near]) - goal).square().flatten(1).sum(1)
        return added.index_add(0, near, self.weight * distance)
