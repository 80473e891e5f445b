"""How uncertain the model is at each noise level, learned beside it."""

import math

import torch
from torch import Tensor, nn

from kao.diffusion.schedules import Level
from kao.errors import ConfigError


class Uncertainty(nn.Module):
    """u(level), with which a loss L becomes L / exp(u) + u; Karras et al. (2024a), eq. 21.

    Its minimum over u is at u = log E[L]: levels come to weigh the same whatever their loss, and
    u is a smooth record of the loss by level.  u is linear in random Fourier features of the noise
    level and starts at zero, where the loss is the plain one.

    Args:
        features: How many cosines, at least 1.
        seed: Of their frequencies and phases, which stay as drawn.

    Raises:
        ConfigError: Fewer than one feature.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, *, features: int = 128, seed: int = 0):
        super().__init__()
        if features < 1:
            raise ConfigError(
                f"loss.uncertainty is built with {features} features, but it needs at least 1: "
                f"128 is customary."
            )
        generator = torch.Generator().manual_seed(seed)
        # The device is named, so that a model built on the meta device has its waves all the same.
        frequencies = torch.randn(features, generator=generator, device="cpu")
        phases = torch.rand(features, generator=generator, device="cpu")
        self.register_buffer("frequencies", frequencies)
        self.register_buffer("phases", phases)
        self.slope = nn.Parameter(torch.zeros(features))
        self.offset = nn.Parameter(torch.zeros(1))  # of one dimension, so that it can be sharded

    def forward(self, level: Level) -> Tensor:
        """Evaluate u.

        Args:
            level: Fields (B,), float64 on the CPU.

        Returns:
            (B,), float32, on the device of the parameters, under autocast too.
        """
        # c_noise of Karras et al. (2022), log(sigma / alpha) / 4, within e^-20 and e^20: pure noise
        # has no finite one.
        noise = (-level.snr.log() / 8).clamp(-5, 5).to(self.frequencies)
        waves = (2 * math.pi * (noise[:, None] * self.frequencies + self.phases)).cos()
        # A product and a sum, not a matrix product, which autocast would take to 16 bits.
        return math.sqrt(2) * (waves * self.slope).sum(1) + self.offset
