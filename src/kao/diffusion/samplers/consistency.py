"""Few-step sampling of a consistency model."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from kao.diffusion.denoiser import Denoise
from kao.diffusion.noise import Noise
from kao.diffusion.samplers.base import Sampler


@dataclass(frozen=True)
class Consistency(Sampler):
    """Predict the image, put noise back on it, repeat: Song et al. (2023), algorithm 1.

    Latent consistency models are drawn from in this way too (Luo et al. 2023, algorithm 3).  It
    integrates nothing, hence order 0: it is right only for a network trained to say where the
    path from x_t ends, for which any number of steps gives the law of the data.  From a network
    that says the mean of what x_t may have been, which other training teaches, the pictures are
    too smooth after few steps and their law stays wrong after many.
    """

    order: ClassVar[int] = 0

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`; see `Sampler.step`."""
        alpha, sigma = denoise.schedule(s)
        x = alpha * denoise(x, t).x0
        return (x if sigma == 0 else x + sigma * noise(x)), None
