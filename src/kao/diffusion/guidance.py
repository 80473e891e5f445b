"""Denoisers that wrap denoisers: each changes the prediction and is itself a `Denoise`."""

import math

from torch import Tensor

from kao.diffusion.denoiser import Denoise, Prediction
from kao.errors import ConfigError


class Clipped:
    """Clamp predicted images to [-limit, limit], as DDPM does.  eps is left as predicted.

    That is what the published samplers do: DDPM's posterior uses (x_t, clipped x_0), and DDIM
    uses clipped x_0 with the raw eps.

    Args:
        denoise: The denoiser to wrap.
        limit: Largest magnitude of a clean image, in units of the data, above 0.

    Raises:
        ConfigError: limit is not a positive number.
    """

    def __init__(self, denoise: Denoise, limit: float = 1.0):
        if not 0 < limit < math.inf:
            raise ConfigError(
                f"The clipping limit is {limit}, but it must be a positive number: 1 for pixels."
            )
        self.denoise, self.schedule, self.limit = denoise, denoise.schedule, limit

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict (x_0, eps) from `x` (B, C, H, W) at time `t`, with x_0 clamped."""
        prediction = self.denoise(x, t)
        return prediction._replace(x0=prediction.x0.clamp(-self.limit, self.limit))
