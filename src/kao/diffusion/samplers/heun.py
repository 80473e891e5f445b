"""Heun's second-order method along the probability-flow ODE."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from kao.diffusion.denoiser import Denoise
from kao.diffusion.noise import Noise
from kao.diffusion.samplers.base import Sampler


@dataclass(frozen=True)
class Heun(Sampler):
    """Trapezoid along the path dx = x_0 d(alpha) + eps d(sigma); two network calls a step.

    With alpha = 1 this is algorithm 1 of Karras et al. (2022); with alpha = 1 - t, sigma = t
    it is Heun's method on the flow's velocity.  No division by alpha, so it may start at
    pure noise.  The last step, to sigma = 0, is Euler's, as in the paper.
    """

    order: ClassVar[int] = 2

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`; see `Sampler.step`."""
        here, there = denoise.schedule(t), denoise.schedule(s)
        p = denoise(x, t)
        euler = there.alpha * p.x0 + there.sigma * p.eps
        if there.sigma == 0:
            return euler, None
        q = denoise(euler, s)
        x = x + (there.alpha - here.alpha) * (p.x0 + q.x0) / 2
        x = x + (there.sigma - here.sigma) * (p.eps + q.eps) / 2
        return x, None
